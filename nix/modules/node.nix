# A node: the machine that has data. It backs up, checks and repairs its own at night, with a write key and nothing more.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.replicator;
  node = cfg.node;
  hardening = import ../lib/hardening.nix;
  sizes = import ../lib/sizes.nix { inherit lib; };
  roster = import ../lib/roster.nix { inherit lib; };
  toml = import ../lib/toml.nix { inherit lib; };
  settings = import ./settings.nix { inherit lib sizes; };
  notes = "/run/replicator-captured";
  done = "/run/replicator-backup";
  exe = lib.getExe cfg.package;

  hook =
    name: text: if text == "" then null else toString (pkgs.writeShellScript "replicator-${name}" text);
  # Quiet when all went well; a person reads the rest in the run's summary.
  before =
    name: one:
    hook "before-${name}" (
      lib.concatMapStrings (state: ''
        if ! [ -e ${notes}/${state} ]; then
          echo "replicator-capture-${state}.service did not succeed for this run: journalctl -u replicator-capture-${state}; start replicator-backup.service, which runs it" >&2
          exit 1
        fi
      '') one.captures
      + one.before
    );
  after =
    name: one:
    hook "after-${name}" (
      lib.concatMapStrings (state: "if [ -d ${done} ]; then : > ${done}/${state}; fi\n") one.releases
      + one.after
    );

  byDay = node.rate.upDay != null || node.rate.downDay != null;
  config' = lib.recursiveUpdate {
    node = {
      inherit (node) spool cache;
      spool_limit = node.spoolLimit;
    };
    line = {
      night = if byDay then "${node.window.start}-${toString node.window.end}" else null;
      zone = if byDay then config.time.timeZone or null else null;
      inherit (node.rate) up down;
      up_day = node.rate.upDay;
      down_day = node.rate.downDay;
    };
    dataset = lib.mapAttrs (
      name: one:
      settings.said one
      // {
        before = before name one;
        after = after name one;
      }
    ) node.datasets;
    notify = settings.notify cfg.notify;
    metrics.textfile = node.metricsFile;
    peer = lib.mapAttrs (_: peer: peer // { own = if peer.own then true else null; }) node.peers;
  } node.settings;
  file = settings.checked pkgs cfg.package "replicator-node.toml" (toml config');

  paths = lib.filter (path: path != null) [
    node.stateDir
    node.spool
    node.cache
  ];
  # Without the folder of the metrics a night goes on, and says so.
  writes =
    paths ++ lib.optional (node.metricsFile != null) "-${builtins.dirOf (toString node.metricsFile)}";
  besides = lib.filter (place: place != null) (
    lib.mapAttrsToList (_: one: one.alsoBorg) node.datasets
  );
  # Archives beside datasets: borg, its passphrase as a credential, and the repositories that are folders.
  withBorg = lib.optionalAttrs (besides != [ ]) {
    path = [
      pkgs.coreutils
      node.borg.package
      pkgs.openssh
    ];
    environment =
      environment
      // lib.optionalAttrs (node.borg.passphraseFile != null) {
        BORG_PASSCOMMAND = "cat %d/borg-passphrase";
      }
      // lib.optionalAttrs (node.cache != null) { BORG_CACHE_DIR = "${node.cache}/borg"; };
    serviceConfig = {
      LoadCredential =
        base.LoadCredential
        ++ lib.optional (node.borg.passphraseFile != null) "borg-passphrase:${node.borg.passphraseFile}";
      # One that is not there, or not mounted, is for borg to name: the night begins without it.
      ReadWritePaths = writes ++ map (place: "-${place}") (lib.filter (lib.hasPrefix "/") besides);
    };
  };
  environment = {
    REPLICATOR_HOME = node.stateDir;
    REPLICATOR_CONFIG = "${file}";
    HOME = node.stateDir;
  };
  base = hardening.base // {
    Type = "oneshot";
    User = node.user;
    Group = node.group;
    ReadWritePaths = writes;
    LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") cfg.notifyCredentials;
    TimeoutStartSec = "infinity";
    # After a stop the hook after runs and snapshots are removed.
    TimeoutStopSec = "15min";
    Nice = 10;
    IOSchedulingClass = "idle";
    # 3: published, with gaps that are named; `replicator-health` says when they stay.
    SuccessExitStatus = [ 3 ];
  };
  # Reads everybody's files and writes only its own: the one capability of a node, in units that read datasets.
  reader = base // {
    AmbientCapabilities = [ "CAP_DAC_READ_SEARCH" ];
    CapabilityBoundingSet = [ "CAP_DAC_READ_SEARCH" ];
    # In a user namespace of its own the capability would count for nothing.
    PrivateUsers = false;
    ProtectHome = "read-only";
  };
  unit = description: serviceConfig: {
    inherit description environment serviceConfig;
    wants = [ "network-online.target" ];
    after = [
      "network-online.target"
    ]
    ++ lib.optional (cfg.mesh.enable or false) "wireguard-${cfg.mesh.interface}.service";
    onFailure = cfg.onFailure;
    # A new configuration never ends a night's work that is under way.
    restartIfChanged = false;
    stopIfChanged = false;
    unitConfig = {
      ConditionPathExists = "${node.stateDir}/node/home.json";
      RequiresMountsFor = paths;
    };
    path = [ pkgs.coreutils ];
  };
  timer = onCalendar: {
    wantedBy = [ "timers.target" ];
    timerConfig = {
      OnCalendar = onCalendar;
      Persistent = true;
      RandomizedDelaySec = node.randomizedDelay;
      FixedRandomDelay = true;
    };
  };
  # One after the other, whatever woke them: a second run beside a running one would be refused. The lock is the process's.
  inTurn = words: "${pkgs.util-linux}/bin/flock --no-fork ${node.stateDir}/turn ${exe} ${words}";
  # What no run is there to tell: that none came. A channel that fails is no reason to call the data unsafe.
  tellThem = lib.optionalString (settings.tells cfg.notify) "${exe} notify || true\n";
  often = lib.filterAttrs (_: one: one.onCalendar != null) node.datasets;

  unmet = lib.mapAttrs (name: one: roster.unmet node.peers one name) node.datasets;
  command = pkgs.writeShellScriptBin "replicator-node" ''
    # The program as the node's own user, in its home: replicator-node status
    exec ${pkgs.util-linux}/bin/setpriv --reuid=${node.user} --regid=${node.group} --init-groups env REPLICATOR_HOME=${lib.escapeShellArg node.stateDir} REPLICATOR_CONFIG=${file} HOME=${lib.escapeShellArg node.stateDir} ${exe} "$@"
  '';
in
{
  imports = [
    ./common.nix
    ./state.nix
  ];

  options.services.replicator.node = {
    enable = lib.mkEnableOption "this host as a node: nightly backups of its datasets to its tenant's providers";

    user = lib.mkOption {
      type = lib.types.str;
      default = "replicator";
      description = "The node's own user. It reads every file and writes only its own.";
    };

    group = lib.mkOption {
      type = lib.types.str;
      default = node.user;
      defaultText = lib.literalMD "as `user`";
      description = "The node's own group.";
    };

    stateDir = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/replicator";
      description = "The home: write key, charter, catalog. Must outlive a reboot; a lost one costs one full backup and no data.";
    };

    spool = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/srv/storage/replicator/spool";
      description = "Where sealed objects wait for their copies; below the home unless set. Up to `spoolLimit`, so not on a small `/var`.";
    };

    spoolLimit = lib.mkOption {
      type = lib.types.nullOr sizes.type;
      default = null;
      example = "20G";
      description = "How much the spool may take; a quarter of what is free, at most 32 GB, unless set.";
    };

    cache = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/srv/storage/replicator/cache";
      description = "What unchanged files and stored chunks are known by, 80 bytes a chunk; below the home unless set. May be lost.";
    };

    dumpDir = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/replicator-dumps";
      example = "/srv/storage/dumps";
      description = "Where captures write; as large as all dumps.";
    };

    settings = lib.mkOption {
      type = settings.free;
      default = { };
      example = {
        node.spool_limit = "20G";
      };
      description = "Further tables and keys of config.toml, for what has no option here; the program refuses what it does not know when the system is built.";
    };

    datasets = lib.mkOption {
      type = lib.types.attrsOf (lib.types.submodule settings.dataset);
      default = { };
      example = lib.literalExpression ''{ photos = { paths = [ "/srv/photos" ]; copies = 3; minimum = 2; }; }'';
      description = "What is backed up, and what is promised for it. One that is taken out is not backed up any more; its snapshots stay.";
    };

    peers = lib.mkOption {
      type = lib.types.attrsOf (lib.types.submodule settings.peer);
      default = if cfg.roster == null then { } else roster.peersOf cfg.hosts cfg.name;
      defaultText = lib.literalMD "all providers of the roster but this host";
      description = "The providers that should be in the charter. They get there by the owner's word alone: `replicator-keeper-todo` says how.";
    };

    borg = {
      package = lib.mkOption {
        type = lib.types.package;
        default = pkgs.borgbackup;
        defaultText = lib.literalMD "pkgs.borgbackup";
        description = "The borg that makes archives beside datasets; 1.4.";
      };
      passphraseFile = lib.mkOption {
        type = lib.types.nullOr lib.types.externalPath;
        default = null;
        example = "/run/secrets/borg";
        description = "The passphrase of the repositories that datasets name with `alsoBorg`, handed to borg alone, by a credential of the unit.";
      };
    };

    grantFile = lib.mkOption {
      type = lib.types.nullOr lib.types.externalPath;
      default = null;
      example = "/run/secrets/replicator-grant";
      description = "The keeper's answer to this node's request, for enrolment without a person at the node. Without it: `replicator-node node add -`.";
    };

    window = {
      start = lib.mkOption {
        type = lib.types.strMatching "[0-2][0-9]:[0-5][0-9]";
        default = "01:00";
        description = "When the night begins, in the host's time zone; `randomizedDelay` comes on top.";
      };
      end = lib.mkOption {
        type = lib.types.nullOr (lib.types.strMatching "[0-2][0-9]:[0-5][0-9]");
        default = null;
        example = "07:00";
        description = "When a run that is not done is stopped in order; the next one goes on from there. Null: it may take as long as it takes.";
      };
    };

    rate = {
      up = lib.mkOption {
        type = lib.types.nullOr sizes.type;
        default = null;
        example = "5M";
        description = "Bytes a second that may be sent in the window, or always if it has no end. Null: the whole line.";
      };
      upDay = lib.mkOption {
        type = lib.types.nullOr sizes.type;
        default = null;
        example = "500k";
        description = "Bytes a second that may be sent outside of the window, by runs beside the nights; `0` for nothing. Needs `window.end`.";
      };
      down = lib.mkOption {
        type = lib.types.nullOr sizes.type;
        default = null;
        example = "20M";
        description = "Bytes a second that may be fetched to be stored elsewhere. Restores take all of the line.";
      };
      downDay = lib.mkOption {
        type = lib.types.nullOr sizes.type;
        default = null;
        example = "2M";
        description = "Likewise outside of the window. Needs `window.end`.";
      };
    };

    randomizedDelay = lib.mkOption {
      type = lib.types.str;
      default = "60min";
      description = "Up to how much later each host begins, always the same for one host, so that not all send at once.";
    };

    verify = {
      onCalendar = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = "Sun *-*-* 05:00:00";
        description = "When a sample of stored objects is fetched and checked as far as a node can: names, seals, references. Null: never.";
      };
      sample = lib.mkOption {
        type = lib.types.strMatching "[0-9]{1,3}(\\.[0-9]+)?%";
        default = "5%";
        description = "Share of the objects.";
      };
    };

    repair.onCalendar = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = "*-*-* 04:00:00";
      description = "When every provider is asked for inventory and proofs, and missing or damaged copies are made again. Null: never.";
    };

    health.onCalendar = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = "*-*-* 12:00:00";
      description = "When it is asked whether the data is safe, from what was last heard; if not, the unit fails and `onFailure` is told. Null: never.";
    };

    command = lib.mkOption {
      type = lib.types.package;
      readOnly = true;
      internal = true;
      default = command;
      defaultText = lib.literalMD "a package";
      description = "The program as this user, in this home.";
    };

    todo = lib.mkOption {
      type = lib.types.package;
      readOnly = true;
      internal = true;
      default = settings.todo pkgs file exe;
      defaultText = lib.literalMD "a package";
      description = "Prints what is to be typed on the keeper.";
    };

    metricsFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/var/lib/prometheus-node-exporter/replicator-node.prom";
      description = "Where each run writes how things stand, as a text file for Prometheus' node exporter. Its folder must exist and be writable by the node's user.";
    };
  };

  config = lib.mkIf node.enable {
    assertions =
      lib.concatLists (
        lib.mapAttrsToList (name: one: [
          {
            assertion = builtins.match "[^@:/.-][^@:/]{0,63}" name != null;
            message = "services.replicator.node.datasets.\"${name}\" cannot be a dataset's name: no @, : and / in it, no . or - as its first.";
          }
          {
            assertion = one.paths != [ ];
            message = "services.replicator.node.datasets.${name}.paths is empty: name what is to be backed up.";
          }
          {
            assertion = one.copies == null || one.minimum == null || one.minimum <= one.copies;
            message = "services.replicator.node.datasets.${name}.minimum of ${toString one.minimum} is more than ${toString one.copies} copies: lower it, or raise copies.";
          }
          {
            assertion = one.copies == null || one.coding == null;
            message = "services.replicator.node.datasets.${name} has copies and coding, which are two promises: leave one of them out.";
          }
          {
            assertion = one.onCalendar == null || builtins.match "[a-zA-Z0-9_-]{1,64}" name != null;
            message = "services.replicator.node.datasets.\"${name}\".onCalendar makes a unit of that name: use letters, digits, - and _ only.";
          }
          {
            assertion = one.snapshot == "none";
            message = "services.replicator.node.datasets.${name}.snapshot needs root, which a node never is: let services.replicator.state.${name}.snapshot make it, in a unit of its own.";
          }
          {
            assertion = node.peers == { } || unmet.${name}.minimum == [ ];
            message = "The declared peers cannot hold what is promised: ${
              lib.concatStringsSep "; " unmet.${name}.minimum
            }.";
          }
        ]) node.datasets
      )
      ++ [
        {
          assertion = !byDay || node.window.end != null;
          message = "services.replicator.node.rate: upDay and downDay say what holds outside of the night; say when it ends, with window.end.";
        }
        {
          assertion = node.user != "root";
          message = "services.replicator.node.user is root: a node reads by a capability and has no other right; name a user of its own.";
        }
        {
          assertion = node.datasets != { };
          message = "services.replicator.node is enabled and has nothing to back up: set services.replicator.node.datasets, or services.replicator.state.";
        }
        {
          assertion = lib.all (path: !lib.hasPrefix "/nix/store" path) (map toString paths);
          message = "services.replicator.node: stateDir, spool and cache are written to, and the Nix store is not: name folders elsewhere.";
        }
      ];

    warnings = lib.concatLists (
      lib.mapAttrsToList (
        name: _:
        lib.optionals (node.peers != { }) (map (one: "services.replicator: ${one}.") unmet.${name}.copies)
      ) node.datasets
    );

    users.users = lib.mkIf (node.user == "replicator") {
      replicator = {
        isSystemUser = true;
        inherit (node) group;
      };
    };
    users.groups = lib.mkIf (node.group == "replicator") { replicator = { }; };

    environment.systemPackages = [
      cfg.package
      node.command
      node.todo
    ];
    environment.etc."replicator/node.toml".source = file;

    systemd.tmpfiles.settings."10-replicator-node" = lib.genAttrs (map toString paths) (_: {
      d = {
        mode = "0700";
        inherit (node) user group;
      };
    });

    systemd.services = {
      # Asks the keeper for a right, and takes its answer. Says in words what a person has to do.
      replicator-join = {
        description = "replicator: ask the keeper for this node's right";
        inherit environment;
        wantedBy = [ "multi-user.target" ];
        unitConfig = {
          ConditionPathExists = "!${node.stateDir}/node/home.json";
          RequiresMountsFor = paths;
        };
        path = [ pkgs.coreutils ];
        restartIfChanged = true;
        script = ''
          ${exe} node request --name ${lib.escapeShellArg cfg.name} > "$REPLICATOR_HOME/request"
          if [ -e "''${CREDENTIALS_DIRECTORY:-/nonexistent}/replicator-grant" ]; then
            ${exe} node add - < "$CREDENTIALS_DIRECTORY/replicator-grant"
            rm "$REPLICATOR_HOME/request"
          else
            echo "This node has no right to write yet. On the keeper:  replicator node add -  < ${node.stateDir}/request (its first line)"
            echo "Then here:  replicator-node node add -  and paste what the keeper answered; or set services.replicator.node.grantFile."
            echo "The request, which holds no secret:"
            head -n 1 "$REPLICATOR_HOME/request"
          fi
        '';
        serviceConfig =
          base
          # Nobody is asked anything, and nothing is sent: a person carries both codes.
          // hardening.offline
          // {
            RemainAfterExit = true;
            TimeoutStartSec = "5min";
            LoadCredential = lib.optional (node.grantFile != null) "replicator-grant:${node.grantFile}";
          };
      };

      replicator-backup =
        lib.recursiveUpdate (lib.recursiveUpdate (unit "replicator: back up" reader) withBorg)
          {
            serviceConfig.ExecStart = inTurn "backup";
          };

      replicator-repair = lib.mkIf (node.repair.onCalendar != null) (
        # What is missing at every provider is read from its source again, which is why it may read files.
        lib.recursiveUpdate (unit "replicator: ask for proofs, make missing copies again" reader) {
          serviceConfig.ExecStart = inTurn "repair --unattended";
        }
      );

      replicator-verify = lib.mkIf (node.verify.onCalendar != null) (
        lib.recursiveUpdate (unit "replicator: check a sample of what is stored" base) {
          serviceConfig.ExecStart = inTurn "verify --sample ${
            lib.replaceStrings [ "%" ] [ "%%" ] node.verify.sample
          }";
        }
      );

      replicator-health = lib.mkIf (node.health.onCalendar != null) (
        lib.recursiveUpdate (unit "replicator: is the data safe" base) {
          script = ''
            code=0
            ${exe} status --offline || code=$?
            ${tellThem}exit "$code"
          '';
          # Below the promise or stale: here a person is told.
          serviceConfig = lib.optionalAttrs (!settings.tells cfg.notify) hardening.offline // {
            SuccessExitStatus = [ ];
            TimeoutStartSec = "5min";
          };
        }
      );

      replicator-window-end = lib.mkIf (node.window.end != null) {
        description = "replicator: the night is over";
        conflicts = [
          "replicator-backup.service"
          "replicator-repair.service"
          "replicator-verify.service"
        ];
        # By stopping, systemd ends a run in order: what was sent is kept, and the next one goes on.
        serviceConfig =
          hardening.base
          // hardening.offline
          // {
            Type = "oneshot";
            DynamicUser = true;
            ExecStart = "${pkgs.coreutils}/bin/true";
          };
        restartIfChanged = false;
      };
    }
    // lib.mapAttrs' (
      name: _:
      lib.nameValuePair "replicator-backup-${name}" (
        lib.recursiveUpdate (lib.recursiveUpdate (unit "replicator: back up ${name}" reader) withBorg) {
          serviceConfig.ExecStart = inTurn "backup ${lib.escapeShellArg name}";
        }
      )
    ) often;

    systemd.timers = {
      replicator-backup = timer "*-*-* ${node.window.start}:00";
      replicator-repair = lib.mkIf (node.repair.onCalendar != null) (timer node.repair.onCalendar);
      replicator-verify = lib.mkIf (node.verify.onCalendar != null) (timer node.verify.onCalendar);
      replicator-health = lib.mkIf (node.health.onCalendar != null) (
        lib.recursiveUpdate (timer node.health.onCalendar) { timerConfig.RandomizedDelaySec = "5min"; }
      );
      replicator-window-end = lib.mkIf (node.window.end != null) {
        wantedBy = [ "timers.target" ];
        timerConfig.OnCalendar = "*-*-* ${node.window.end}:00";
      };
    }
    // lib.mapAttrs' (
      name: one:
      lib.nameValuePair "replicator-backup-${name}" (
        lib.recursiveUpdate (timer one.onCalendar) { timerConfig.RandomizedDelaySec = "5min"; }
      )
    ) often;
  };
}
