# A whole host from its stanza in the roster: disks, their unlocking, mesh, provider, proof. For machines that are set up
# for this; a host that has its disks already uses the provider module alone.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.replicator;
  host = cfg.host;
  sizes = import ../lib/sizes.nix { inherit lib; };
  hardening = import ../lib/hardening.nix;
  disk = host.disk;
  layout = import (../disk-layouts + "/${disk.layout}.nix") {
    inherit lib;
    disk = {
      name = "replicator";
      inherit (disk) devices mountpoint luksKeyFile;
    };
  };
  quotaTool = pkgs.writeShellScript "replicator-project-quota" ''
    # Project 7144 is the provider's folder; what is beside it on the disk has no limit from here.
    ${pkgs.xfsprogs}/bin/xfs_quota -x -c 'project -s -p ${toString cfg.provider.dataDir} 7144' -c 'limit -p bhard=${toString (sizes.parse disk.projectQuota)} 7144' ${disk.mountpoint}
  '';
in
{
  imports = [
    ./mesh.nix
    ./enrol.nix
  ];

  options.services.replicator.host = {
    enable = lib.mkEnableOption "this host as the roster describes it: its disk laid out, unlocked and mounted, in the mesh, and serving";

    disk = {
      layout = lib.mkOption {
        type = lib.types.enum [
          "provider-xfs"
          "provider-btrfs"
          "provider-raid1-xfs"
        ];
        default = "provider-xfs";
        description = "How the disk for objects is laid out, by disko. It is formatted when the host is installed, and never afterwards.";
      };
      devices = lib.mkOption {
        type = lib.types.listOf lib.types.path;
        default = [ ];
        example = [ "/dev/disk/by-id/ata-NOVA" ];
        description = "Names that stay the same, below /dev/disk/by-id: one, or two for RAID1.";
      };
      mountpoint = lib.mkOption {
        type = lib.types.path;
        default = "/srv/replicator";
        description = "Where it is mounted; home and objects of the provider lie on it, so it can be moved whole to another system.";
      };
      size = lib.mkOption {
        type = lib.types.nullOr sizes.type;
        default = null;
        example = "4T";
        description = "How large it is, so that an offer above it is refused when the system is built.";
      };
      luksKeyFile = lib.mkOption {
        type = lib.types.nullOr lib.types.externalPath;
        default = null;
        example = "/keys/luks-replicator";
        description = "NAME.luks of `replicator host new NAME`: opens the disk at boot. Null: objects are sealed already, the disk is not encrypted once more.";
      };
      projectQuota = lib.mkOption {
        type = lib.types.nullOr sizes.type;
        default = null;
        example = "510G";
        description = "A limit by the kernel too, for XFS: the provider keeps its capacity by itself, this holds if it is at fault. Needs a kernel with XFS quotas.";
      };
    };

    identityFile = lib.mkOption {
      type = lib.types.nullOr lib.types.externalPath;
      default = null;
      example = "/keys/identity";
      description = "NAME.identity of `replicator host new NAME`.";
    };

    mesh = lib.mkEnableOption "the mesh; off where another VPN serves" // {
      default = true;
    };
  };

  config = lib.mkIf host.enable (
    lib.mkMerge [
      {
        assertions = [
          {
            assertion = cfg.roster != null;
            message = "services.replicator.host needs services.replicator.roster: the host is what its stanza says.";
          }
          {
            assertion = lib.length disk.devices == (if disk.layout == "provider-raid1-xfs" then 2 else 1);
            message = "services.replicator.host.disk.devices has ${toString (lib.length disk.devices)} devices, and ${disk.layout} takes ${
              if disk.layout == "provider-raid1-xfs" then "two" else "one"
            }: name them below /dev/disk/by-id.";
          }
          {
            assertion = lib.all (device: lib.hasPrefix "/dev/disk/by-id/" (toString device)) disk.devices;
            message = "services.replicator.host.disk.devices: name them below /dev/disk/by-id; a name like /dev/sda may be another disk at the next boot.";
          }
          {
            assertion = disk.projectQuota == null || disk.layout != "provider-btrfs";
            message = "services.replicator.host.disk.projectQuota is for XFS: leave it out, or choose another layout.";
          }
          {
            assertion =
              disk.projectQuota == null
              || cfg.provider.capacity == null
              || sizes.parse cfg.provider.capacity < sizes.parse disk.projectQuota;
            message = "services.replicator.host.disk.projectQuota of ${toString disk.projectQuota} leaves no room beside the capacity of ${toString cfg.provider.capacity}: make it a twentieth larger.";
          }
        ];
        services.replicator = {
          mesh.enable = lib.mkDefault host.mesh;
          provider = {
            enable = true;
            mountPoint = disk.mountpoint;
            stateDir = lib.mkDefault "${toString disk.mountpoint}/home";
            diskSize = lib.mkDefault disk.size;
            identityFile = lib.mkDefault host.identityFile;
            uid = lib.mkDefault 794;
            openFirewallOn = lib.mkIf host.mesh [ cfg.mesh.interface ];
          };
        };
      }
      # Key by key: which there are must not depend on what they are made of.
      {
        disko.devices = layout.disko.devices;
        boot.swraid.enable = lib.mkIf (disk.layout == "provider-raid1-xfs") layout.boot.swraid.enable;
        environment.etc.crypttab = lib.mkIf (disk.luksKeyFile != null) {
          inherit (layout.environment.etc.crypttab) text;
        };
      }
      (lib.mkIf (disk.projectQuota != null) {
        systemd.services.replicator-project-quota = {
          description = "replicator: a limit by the kernel for the provider's folder";
          requires = [ "replicator-provider-folders.service" ];
          after = [ "replicator-provider-folders.service" ];
          before = [ "replicator-provider.service" ];
          wantedBy = [ "replicator-provider.service" ];
          unitConfig.RequiresMountsFor = [ disk.mountpoint ];
          restartIfChanged = false;
          serviceConfig =
            hardening.base
            // hardening.offline
            // {
              Type = "oneshot";
              RemainAfterExit = true;
              ExecStart = quotaTool;
              ReadWritePaths = [ disk.mountpoint ];
              # quotactl(2) asks for it, and for the block device.
              CapabilityBoundingSet = [ "CAP_SYS_ADMIN" ];
              PrivateUsers = false;
              PrivateDevices = false;
              # Named, not opened.
              DevicePolicy = "closed";
              SystemCallFilter = [
                "@system-service"
                "quotactl"
                "quotactl_fd"
              ];
            };
        };
      })
    ]
  );
}
