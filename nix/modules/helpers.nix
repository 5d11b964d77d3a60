# Machines that help a tenant, each with a home, a user and keys of its own: a maintainer, which marks what is dead and
# reads nothing, and a drill host, which restores for trial and therefore reads everything.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.replicator;
  hardening = import ../lib/hardening.nix;
  toml = import ../lib/toml.nix { inherit lib; };
  settings = import ./settings.nix {
    inherit lib;
    sizes = import ../lib/sizes.nix { inherit lib; };
  };
  exe = lib.getExe cfg.package;

  helper = role: one: rec {
    user = "replicator-${role}";
    file = settings.checked pkgs cfg.package "replicator-${role}.toml" (toml {
      notify = settings.notify cfg.notify;
      metrics.textfile = one.metricsFile;
    });
    environment = {
      REPLICATOR_HOME = one.stateDir;
      REPLICATOR_CONFIG = "${file}";
      HOME = one.stateDir;
    };
    base = hardening.base // {
      Type = "oneshot";
      User = user;
      Group = user;
      ReadWritePaths = [
        one.stateDir
      ]
      ++ lib.optional (one.metricsFile != null) "-${builtins.dirOf (toString one.metricsFile)}";
      LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") cfg.notifyCredentials;
      TimeoutStartSec = "infinity";
      Nice = 10;
      IOSchedulingClass = "idle";
      SuccessExitStatus = [ 3 ];
    };
    unit = description: more: {
      inherit description environment;
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      onFailure = cfg.onFailure;
      restartIfChanged = false;
      unitConfig = {
        ConditionPathExists = "${one.stateDir}/${role}/home.json";
        RequiresMountsFor = [ one.stateDir ];
      };
      serviceConfig = base // more;
    };
    join = credentials: {
      description = "replicator: ask the keeper for the right of a ${role}";
      inherit environment;
      wantedBy = [ "multi-user.target" ];
      path = [ pkgs.coreutils ];
      unitConfig = {
        ConditionPathExists = "!${one.stateDir}/${role}/home.json";
        RequiresMountsFor = [ one.stateDir ];
      };
      script = ''
        ${exe} node request --role ${role} --name ${lib.escapeShellArg "${cfg.name}-${role}"} > "$REPLICATOR_HOME/request"
        if [ -e "''${CREDENTIALS_DIRECTORY:-/nonexistent}/replicator-grant" ]; then
          ${exe} node add - < "$CREDENTIALS_DIRECTORY/replicator-grant"
          rm "$REPLICATOR_HOME/request"
        else
          echo "This ${role} has no right yet. On the keeper:  replicator node add -  < ${one.stateDir}/request (its first line)"
          echo "Then set services.replicator.${option role}.grantFile to a file with what the keeper answered."
          head -n 1 "$REPLICATOR_HOME/request"
        fi
      '';
      serviceConfig =
        base
        // hardening.offline
        // {
          RemainAfterExit = true;
          TimeoutStartSec = "5min";
          LoadCredential =
            credentials ++ lib.optional (one.grantFile != null) "replicator-grant:${one.grantFile}";
        };
    };
    # What no run is there to tell: that none came.
    telling = lib.mkIf (settings.tells cfg.notify) (
      unit "replicator: tell people how a ${role} stands" { ExecStart = "${exe} notify"; }
    );
    tellingTimer = lib.mkIf (settings.tells cfg.notify) (timer "*-*-* 08,20:00:00" "10min");
    command = pkgs.writeShellScriptBin user ''
      # The program as the ${role}'s own user, in its home.
      exec ${pkgs.util-linux}/bin/setpriv --reuid=${user} --regid=${user} --init-groups env REPLICATOR_HOME=${lib.escapeShellArg one.stateDir} REPLICATOR_CONFIG=${file} HOME=${lib.escapeShellArg one.stateDir} ${exe} "$@"
    '';
    folder = {
      d = {
        mode = "0700";
        inherit user;
        group = user;
      };
    };
  };
  option = role: if role == "drill" then "drillHost" else role;
  timer = onCalendar: delay: {
    wantedBy = [ "timers.target" ];
    timerConfig = {
      OnCalendar = onCalendar;
      Persistent = true;
      RandomizedDelaySec = delay;
      FixedRandomDelay = true;
    };
  };
  grantFile = lib.mkOption {
    type = lib.types.nullOr lib.types.externalPath;
    default = null;
    description = "The keeper's answer to this machine's request, which its join unit prints.";
  };
  metricsFile = lib.mkOption {
    type = lib.types.nullOr lib.types.path;
    default = null;
    description = "Where each run writes how things stand, as a text file for Prometheus' node exporter. Its folder must exist and be writable by this user.";
  };
  stateDir =
    role:
    lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/replicator-${role}";
      description = "The home. Must outlive a reboot.";
    };
  besideNode =
    what: lib.mkEnableOption "it although this host is a node: whoever takes the node then ${what}";

  maintainer = helper "maintainer" cfg.maintainer;
  drill = helper "drill" cfg.drillHost;
  passphrase = "replicator-passphrase:${toString cfg.drillHost.passphraseFile}";
in
{
  imports = [ ./common.nix ];

  options.services.replicator = {
    maintainer = {
      enable = lib.mkEnableOption "this host as a maintainer: it marks what no snapshot needs, and reads neither names nor contents";
      stateDir = stateDir "maintainer";
      inherit grantFile metricsFile;
      onCalendar = lib.mkOption {
        type = lib.types.str;
        default = "Sat *-*-* 06:00:00";
        description = "When it prunes. Providers delete later, after lock and grace.";
      };
      besideNode = besideNode "can mark what is not claimed any more";
    };
    drillHost = {
      enable = lib.mkEnableOption "this host as a drill host: it restores for trial, and can read everything";
      stateDir = stateDir "drill";
      inherit grantFile metricsFile;
      passphraseFile = lib.mkOption {
        type = lib.types.nullOr lib.types.externalPath;
        default = null;
        example = "/run/secrets/replicator-passphrase";
        description = "Wraps the restore keys. A machine that can read it by itself protects them no better than itself.";
      };
      scratch = lib.mkOption {
        type = lib.types.path;
        default = "${toString cfg.drillHost.stateDir}/scratch";
        defaultText = lib.literalMD "`scratch` below `stateDir`";
        description = "Where there is room for the largest dataset.";
      };
      onCalendar = lib.mkOption {
        type = lib.types.str;
        default = "monthly";
        description = "When it restores the newest snapshot of every dataset for trial.";
      };
      sample = lib.mkOption {
        type = lib.types.strMatching "[0-9]{1,3}(\\.[0-9]+)?%";
        default = "100%";
        description = "Share of the files. Below 100%, checks that the keeper set are left out.";
      };
      besideNode = besideNode "reads every snapshot, too";
    };
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.maintainer.enable {
      assertions = [
        {
          assertion = !(cfg.node.enable or false) || cfg.maintainer.besideNode;
          message = "services.replicator.maintainer is enabled on a node: whoever takes the node could mark what is stored; use another host, or set services.replicator.maintainer.besideNode.";
        }
      ];
      users.users.${maintainer.user} = {
        isSystemUser = true;
        group = maintainer.user;
      };
      users.groups.${maintainer.user} = { };
      environment.systemPackages = [ maintainer.command ];
      environment.etc."replicator/maintainer.toml".source = maintainer.file;
      systemd.tmpfiles.settings."10-replicator-maintainer".${toString cfg.maintainer.stateDir} =
        maintainer.folder;
      systemd.services.replicator-maintainer-join = maintainer.join [ ];
      systemd.services.replicator-prune = maintainer.unit "replicator: mark what no snapshot needs" {
        ExecStart = "${exe} prune";
      };
      systemd.timers.replicator-prune = timer cfg.maintainer.onCalendar "60min";
      systemd.services.replicator-maintainer-notify = maintainer.telling;
      systemd.timers.replicator-maintainer-notify = maintainer.tellingTimer;
    })
    (lib.mkIf cfg.drillHost.enable {
      assertions = [
        {
          assertion = !(cfg.node.enable or false) || cfg.drillHost.besideNode;
          message = "services.replicator.drillHost is enabled on a node: whoever takes the node could read every snapshot; use another host, or set services.replicator.drillHost.besideNode.";
        }
        {
          assertion = cfg.drillHost.passphraseFile != null;
          message = "services.replicator.drillHost.passphraseFile is not set: restore keys are wrapped by a passphrase; bring it by sops or agenix.";
        }
      ];
      users.users.${drill.user} = {
        isSystemUser = true;
        group = drill.user;
      };
      users.groups.${drill.user} = { };
      environment.systemPackages = [ drill.command ];
      environment.etc."replicator/drill.toml".source = drill.file;
      systemd.tmpfiles.settings."10-replicator-drill" = {
        ${toString cfg.drillHost.stateDir} = drill.folder;
        ${toString cfg.drillHost.scratch} = drill.folder;
      };
      systemd.services.replicator-drill-join = drill.join [ passphrase ];
      systemd.services.replicator-drill = drill.unit "replicator: restore for trial" {
        LoadCredential = drill.base.LoadCredential ++ [ passphrase ];
        ReadWritePaths = drill.base.ReadWritePaths ++ [ cfg.drillHost.scratch ];
        # A drill that could not compare everything has not shown what it is for.
        SuccessExitStatus = [ ];
        ExecStart = "${exe} drill --scratch ${cfg.drillHost.scratch} --sample ${
          lib.replaceStrings [ "%" ] [ "%%" ] cfg.drillHost.sample
        }";
      };
      systemd.timers.replicator-drill = timer cfg.drillHost.onCalendar "1d";
      systemd.services.replicator-drill-notify = drill.telling;
      systemd.timers.replicator-drill-notify = drill.tellingTimer;
    })
  ];
}
