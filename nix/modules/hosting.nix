# Many tenants on one machine: a home for each, one unit for all their nights. Their own keys are made elsewhere.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.replicator;
  hosting = cfg.hosting;
  hardening = import ../lib/hardening.nix;
  sizes = import ../lib/sizes.nix { inherit lib; };
  toml = import ../lib/toml.nix { inherit lib; };
  settings = import ./settings.nix { inherit lib sizes; };
  exe = lib.getExe cfg.package;
  homes = toString hosting.homes;
  fileOf =
    name: one:
    settings.checked pkgs cfg.package "replicator-tenant-${name}.toml" (
      toml (
        lib.recursiveUpdate {
          dataset = lib.mapAttrs (_: settings.said) one.datasets;
          notify = settings.notify one.notify;
        } one.settings
      )
    );
  words = option: value: lib.optional (value != null) "${option} ${toString value}";
  declared = lib.filterAttrs (
    _: one: one.datasets != { } || one.notify != { } || one.settings != { }
  ) hosting.tenants;
  ownFolder = {
    mode = "0700";
    user = hosting.user;
    group = hosting.user;
  };
  command = pkgs.writeShellScriptBin "replicator-tenant" ''
    # The program as the user of all homes, in a tenant's: replicator-tenant anna node request --name anna-hosted
    home=${lib.escapeShellArg homes}/''${1:?which tenant?}; shift
    exec ${pkgs.util-linux}/bin/setpriv --reuid=${hosting.user} --regid=${hosting.user} --init-groups env REPLICATOR_HOME="$home" HOME=${lib.escapeShellArg homes} ${exe} "$@"
  '';
in
{
  imports = [ ./common.nix ];

  options.services.replicator.hosting = {
    enable = lib.mkEnableOption "this host as one that backs up for tenants whose keys are made on devices of their own";
    user = lib.mkOption {
      type = lib.types.str;
      default = "replicator-hosting";
      description = "The user of all homes. It reads every file and writes only its own.";
    };
    homes = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/replicator-homes";
      description = "The folder with a home for each tenant. Must outlive a reboot.";
    };
    tenants = lib.mkOption {
      type = lib.types.attrsOf (
        lib.types.submodule {
          options = {
            datasets = lib.mkOption {
              type = lib.types.attrsOf (lib.types.submodule settings.dataset);
              default = { };
              description = "What is backed up for this tenant, as `node.datasets`; without any, `replicator-tenant NAME dataset add`.";
            };
            notify = lib.mkOption {
              type = lib.types.attrsOf lib.types.anything;
              default = { };
              example = {
                name = "anna";
                ntfy.url_file = "/run/secrets/anna-ntfy";
              };
              description = "Who is told of this tenant's nights, as `services.replicator.notify`. Secrets come by files that the user of all homes can read: no tenant's run has a credential.";
            };
            settings = lib.mkOption {
              type = settings.free;
              default = { };
              example = {
                metrics.textfile = "/var/lib/replicator-homes/anna/metrics.prom";
              };
              description = "Further tables and keys of this tenant's config.toml, as `node.settings`.";
            };
          };
        }
      );
      default = { };
      example = lib.literalExpression ''{ anna.datasets.files.paths = [ "/srv/anna" ]; }'';
      description = "Tenants by the names of their homes. One that is taken out here keeps its home, and its nights, until the folder is removed.";
    };
    command = lib.mkOption {
      type = lib.types.package;
      readOnly = true;
      internal = true;
      default = command;
      defaultText = lib.literalMD "a package";
      description = "The program as this user, in a tenant's home.";
    };
    onCalendar = lib.mkOption {
      type = lib.types.str;
      default = "*-*-* 01:00:00";
      description = "When the nights of all begin.";
    };
    randomizedDelay = lib.mkOption {
      type = lib.types.str;
      default = "60min";
      description = "Up to how much later, always the same for one host.";
    };
    atATime = lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      description = "How many tenants' nights run beside each other. Null: 2.";
    };
    slice = lib.mkOption {
      type = lib.types.nullOr (lib.types.strMatching "[0-9]+[smhd]");
      default = null;
      example = "2h";
      description = "How long one may take while others wait. Null: an hour.";
    };
    up = lib.mkOption {
      type = lib.types.nullOr sizes.type;
      default = null;
      example = "10M";
      description = "Bytes a second that all together may send. Null: the whole line.";
    };
    spool = lib.mkOption {
      type = lib.types.nullOr sizes.type;
      default = null;
      example = "50G";
      description = "Bytes of all that may wait to be sent. Null: a quarter of what is free, at most 32 GB.";
    };
  };

  config = lib.mkIf hosting.enable {
    assertions = [
      {
        assertion = hosting.user != "root" && hosting.user != (cfg.node.user or "replicator");
        message = "services.replicator.hosting.user is ${hosting.user}: tenants' homes have a user of their own; name one that no other unit runs as.";
      }
      {
        assertion = lib.all (name: builtins.match "[a-z0-9][a-z0-9-]{0,62}" name != null) (
          builtins.attrNames hosting.tenants
        );
        message = "services.replicator.hosting.tenants: small letters, digits and - inside, as a tenant's name becomes a folder's.";
      }
    ];
    users.users.${hosting.user} = {
      isSystemUser = true;
      group = hosting.user;
    };
    users.groups.${hosting.user} = { };
    environment.systemPackages = [
      cfg.package
      command
    ];
    systemd.tmpfiles.settings."10-replicator-hosting" = {
      ${homes}.d = ownFolder;
    }
    // lib.mapAttrs' (name: _: lib.nameValuePair "${homes}/${name}" { d = ownFolder; }) hosting.tenants
    // lib.mapAttrs' (
      name: _:
      lib.nameValuePair "${homes}/${name}/config.toml" {
        "L+".argument = "/etc/replicator/tenants/${name}.toml";
      }
    ) declared;
    environment.etc = lib.mapAttrs' (
      name: one: lib.nameValuePair "replicator/tenants/${name}.toml" { source = fileOf name one; }
    ) declared;

    systemd.services.replicator-run-all = {
      description = "replicator: everybody's night";
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      onFailure = cfg.onFailure;
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig.RequiresMountsFor = [ homes ];
      environment = {
        HOME = homes;
        REPLICATOR_HOMES = homes;
      };
      serviceConfig = hardening.base // {
        Type = "oneshot";
        User = hosting.user;
        Group = hosting.user;
        ReadWritePaths = [ homes ];
        # As a node's: in a user namespace of its own the capability would count for nothing.
        AmbientCapabilities = [ "CAP_DAC_READ_SEARCH" ];
        CapabilityBoundingSet = [ "CAP_DAC_READ_SEARCH" ];
        PrivateUsers = false;
        ProtectHome = "read-only";
        TimeoutStartSec = "infinity";
        # Each run has a quarter of an hour to stop, side by side.
        TimeoutStopSec = "20min";
        Nice = 10;
        IOSchedulingClass = "idle";
        SuccessExitStatus = [ 3 ];
        ExecStart = lib.concatStringsSep " " (
          [ "${exe} run --all" ]
          ++ words "--at-a-time" hosting.atATime
          ++ words "--slice" hosting.slice
          ++ words "--up" hosting.up
          ++ words "--spool" hosting.spool
        );
      };
    };
    systemd.timers.replicator-run-all = {
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = hosting.onCalendar;
        Persistent = true;
        RandomizedDelaySec = hosting.randomizedDelay;
        FixedRandomDelay = true;
      };
    };
  };
}
