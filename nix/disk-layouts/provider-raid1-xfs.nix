# Two disks that hold the same: XFS on a RAID1, encrypted as one. For a provider that is not to lose its tenants' copies
# with a disk; for the tenants both are one copy.
{
  disk,
  lib,
  ...
}:
let
  common = import ./common.nix { inherit disk lib; };
in
{
  boot.swraid.enable = true;

  disko.devices = {
    disk = lib.listToAttrs (
      lib.imap0 (
        place: device:
        lib.nameValuePair "${disk.name}-${toString place}" {
          inherit device;
          type = "disk";
          content = {
            type = "gpt";
            partitions.raid = {
              size = "100%";
              content = {
                type = "mdraid";
                inherit (disk) name;
              };
            };
          };
        }
      ) (lib.toList disk.devices)
    );
    mdadm.${disk.name} = {
      type = "mdadm";
      level = 1;
      content = common.sealed {
        type = "filesystem";
        format = "xfs";
        inherit (disk) mountpoint;
        mountOptions = common.mountOptions ++ [ "prjquota" ];
      };
    };
  };
}
// common.unlock "/dev/md/${disk.name}"
