# Consistent copies: units that dump databases or close services before a backup, each as the right user.
#
# A service registers what belongs together as services.replicator.state.NAME. Its capture unit runs before each backup
# and leaves a note when it went well; the dataset's own hook looks for that note, so that a dump that failed fails its
# dataset (and no other). The release unit undoes what the capture did, minutes later, when the dataset was read.
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
  notes = "/run/replicator-captured";
  done = "/run/replicator-backup";
  name = lib.types.strMatching "[a-zA-Z0-9_][a-zA-Z0-9_-]{0,48}";
  # Called so that it comes back beside a folder that is called as the state is.
  dumps = one: "${node.dumpDir}/${one}-dump";
  # There from before a capture closes something until a release went well; on the disk, so after a power cut too.
  closed = one: "${node.dumpDir}/.closed-${one}";
  quoted = lib.escapeShellArg;

  # Whole or not there: a dump that stops half-way leaves the one before.
  into = file: command: ''
    ${command} > ${quoted "${file}.new"}
    mv ${quoted "${file}.new"} ${quoted file}
  '';
  postgresql =
    databases:
    lib.optionalString (databases != [ ]) (
      into "globals.sql" "pg_dumpall --globals-only"
      + lib.concatMapStrings (database: into "${database}.sql" "pg_dump ${quoted database}") databases
    );
  mysql =
    databases:
    lib.optionalString (databases != [ ]) (
      "if command -v mariadb-dump > /dev/null; then dump=mariadb-dump; else dump=mysqldump; fi\n"
      + lib.concatMapStrings (
        database:
        into "${database}.sql" "\"$dump\" --single-transaction --routines --events ${quoted database}"
      ) databases
    );
  sqlite =
    files:
    lib.concatStrings (
      lib.mapAttrsToList (file: path: ''
        rm -f ${quoted "${file}.new"}
        sqlite3 -bail -cmd '.timeout 60000' ${quoted path} ${quoted "VACUUM INTO '${file}.new'"}
        mv ${quoted "${file}.new"} ${quoted file}
      '') files
    );
  btrfs = one: ''
    if [ -e ${quoted one.snapshot.at} ]; then btrfs subvolume delete ${quoted one.snapshot.at}; fi
    btrfs subvolume snapshot -r ${quoted one.snapshot.subvolume} ${quoted one.snapshot.at}
  '';

  settings =
    { name, config, ... }:
    {
      options = {
        folders = lib.mkOption {
          type = lib.types.listOf lib.types.path;
          default = [ ];
          example = [ "/var/lib/shop" ];
          description = "Folders that are backed up as they are, beside what the capture writes.";
        };
        dataset = lib.mkOption {
          type = lib.types.str;
          default = name;
          description = "The dataset that this belongs to; several states may share one.";
        };
        user = lib.mkOption {
          type = lib.types.str;
          default =
            if config.nextcloud.enable then
              "nextcloud"
            else if config.postgresql != [ ] then
              "postgres"
            else if config.mysql != [ ] then
              "mysql"
            else
              "root";
          defaultText = lib.literalMD "nextcloud, postgres, mysql, or root, by what is captured";
          description = "Who runs capture and release: the database's own user, never the node's.";
        };
        group = lib.mkOption {
          type = lib.types.str;
          default = config.user;
          defaultText = lib.literalMD "as `user`";
          description = "The group of capture and release.";
        };
        packages = lib.mkOption {
          type = lib.types.listOf lib.types.package;
          default = [ ];
          description = "Programs that capture and release use.";
        };
        capture = lib.mkOption {
          type = lib.types.lines;
          default = "";
          example = "pg_dump shop > shop.sql.new && mv shop.sql.new shop.sql";
          description = "Shell that makes one moment of it, run in a folder of its own (mode 0700) that is backed up too. What fails here fails the dataset.";
        };
        release = lib.mkOption {
          type = lib.types.lines;
          default = "";
          description = "Shell that undoes what the capture did: when the dataset was read, when the backup ended, however that was, and at boot, until it once went well. It must bear a capture that stopped half-way.";
        };
        postgresql = lib.mkOption {
          type = lib.types.listOf lib.types.str;
          default = [ ];
          example = [ "shop" ];
          description = "PostgreSQL databases that are dumped as plain text, with the users and rights of all.";
        };
        mysql = lib.mkOption {
          type = lib.types.listOf lib.types.str;
          default = [ ];
          description = "MySQL or MariaDB databases that are dumped in one transaction.";
        };
        sqlite = lib.mkOption {
          type = lib.types.attrsOf lib.types.path;
          default = { };
          example = {
            "app.db" = "/var/lib/app/app.db";
          };
          description = "SQLite files that are copied while they are in use, by the name of the copy. Set `user` to their owner.";
        };
        nextcloud.enable = lib.mkEnableOption "Nextcloud's own state: maintenance mode around a dump of its database, and its data folder";
        snapshot = {
          subvolume = lib.mkOption {
            type = lib.types.nullOr lib.types.path;
            default = null;
            description = "A btrfs subvolume of which a read-only snapshot is made, as root, and removed afterwards. Name what is below `at` in `folders`.";
          };
          at = lib.mkOption {
            type = lib.types.nullOr lib.types.path;
            default = null;
            example = "/srv/storage/.replicator";
            description = "Where that snapshot appears; on the same file system.";
          };
        };
        timeout = lib.mkOption {
          type = lib.types.str;
          default = "30min";
          description = "How long the capture may take, as systemd writes it.";
        };
        writable = lib.mkOption {
          type = lib.types.listOf lib.types.path;
          default = [ ];
          description = "Folders that capture and release write to beside their own.";
        };
      };
    };

  cloud = config.services.nextcloud or { };
  cloudData = cloud.datadir or "/var/lib/nextcloud";
  cloudHost = if (cloud.config.dbhost or null) == null then "localhost" else cloud.config.dbhost;
  cloudType = cloud.config.dbtype or "sqlite";
  # By the names that Nextcloud's own units call them: with them occ needs no systemd-run, which is root's.
  cloudCredentials = lib.concatLists (
    lib.mapAttrsToList (name: path: lib.optional (path != null) "${name}:${toString path}") {
      dbpass = cloud.config.dbpassFile or null;
      s3_secret =
        if cloud.config.objectstore.s3.enable or false then
          cloud.config.objectstore.s3.secretFile
        else
          null;
      s3_sse_c_key = cloud.config.objectstore.s3.sseCKeyFile or null;
      secret_file = cloud.secretFile or null;
    }
  );
  cloudDump =
    if cloudType == "pgsql" then
      into "nextcloud.sql" "pg_dump ${quoted (cloud.config.dbname or "nextcloud")}"
    else if cloudType == "mysql" then
      mysql [ (cloud.config.dbname or "nextcloud") ]
    else
      sqlite { "nextcloud.db" = "${cloudData}/data/nextcloud.db"; };

  captureOf =
    one:
    lib.concatStrings [
      (lib.optionalString one.nextcloud.enable "nextcloud-occ maintenance:mode --on\n${cloudDump}")
      (postgresql one.postgresql)
      (mysql one.mysql)
      (sqlite one.sqlite)
      (lib.optionalString (one.snapshot.subvolume != null) (btrfs one))
      one.capture
    ];
  releaseOf =
    one:
    lib.concatStrings [
      (lib.optionalString one.nextcloud.enable "nextcloud-occ maintenance:mode --off\n")
      (lib.optionalString (one.snapshot.subvolume != null) ''
        if [ -e ${quoted one.snapshot.at} ]; then btrfs subvolume delete ${quoted one.snapshot.at}; fi
      '')
      one.release
    ];
  # Whose databases ask for a user of their own.
  kindsOf =
    one:
    lib.optional one.nextcloud.enable "nextcloud"
    ++ lib.optional (one.postgresql != [ ]) "postgresql"
    ++ lib.optional (one.mysql != [ ]) "mysql";
  isCloud = one: type: one.nextcloud.enable && cloudType == type;
  packagesOf =
    one:
    one.packages
    ++ lib.optional (one.postgresql != [ ] || isCloud one "pgsql") (
      config.services.postgresql.package or pkgs.postgresql
    )
    ++ lib.optional (one.mysql != [ ] || isCloud one "mysql") (
      config.services.mysql.package or pkgs.mariadb
    )
    ++ lib.optional (one.sqlite != { } || isCloud one "sqlite") pkgs.sqlite
    ++ lib.optional (one.nextcloud.enable && cloud ? occ) cloud.occ
    ++ lib.optional (one.snapshot.subvolume != null) pkgs.btrfs-progs;

  states = if node.enable then cfg.state else { };
  captured = lib.filterAttrs (_: one: captureOf one != "") states;
  released = lib.filterAttrs (_: one: releaseOf one != "") states;
  hasSnapshot = one: one.snapshot.subvolume != null;

  # What a backup of these states needs before it, and what it leaves behind.
  around =
    names:
    let
      before = builtins.filter (name: captured ? ${name}) names;
      behind = builtins.filter (name: released ? ${name}) names;
      captures = map (name: "replicator-capture-${name}.service") before;
    in
    {
      wants = captures;
      after = captures;
      serviceConfig = {
        RuntimeDirectory = "replicator-backup";
        RuntimeDirectoryMode = "0755";
        # However it ended: what was captured for this run counts for no other, and nothing stays closed.
        ExecStopPost =
          lib.optional (before != [ ])
            "+${pkgs.coreutils}/bin/rm -f ${lib.concatMapStringsSep " " (name: "${notes}/${name}") before}"
          ++
            lib.optional (behind != [ ])
              "+${pkgs.systemd}/bin/systemctl --no-block start ${
                lib.concatMapStringsSep " " (name: "replicator-release-${name}.service") behind
              }";
      };
    };

  # One that is not there yet is nothing to write to. A database in SQLite's WAL mode is read by who may write beside it;
  # maintenance is a line in Nextcloud's own configuration.
  writable =
    one:
    map (path: "-${path}") (
      one.writable
      ++ map (path: builtins.dirOf (toString path)) (builtins.attrValues one.sqlite)
      ++ lib.optional one.nextcloud.enable cloudData
    );

  unit = one: {
    path = [ pkgs.coreutils ] ++ packagesOf one;
    serviceConfig =
      hardening.base
      // {
        Type = "oneshot";
        User = one.user;
        Group = one.group;
        TimeoutStartSec = one.timeout;
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_INET"
          "AF_INET6"
        ];
        # Sockets of databases know their users by uid, which a user namespace of one's own hides.
        PrivateUsers = false;
        # The user's shared memory is the running database's: removed when a capture ends, it would end that too.
        RemoveIPC = false;
        # A folder that a service keeps to itself is often below /home or /root for root alone; the rest is hidden.
        ProtectHome = if one.user == "root" then "read-only" else true;
        ReadWritePaths = writable one;
        LoadCredential = lib.optionals one.nextcloud.enable cloudCredentials;
        Nice = 10;
        IOSchedulingClass = "idle";
      }
      // lib.optionalAttrs (hasSnapshot one) (
        hardening.offline
        // {
          # To make a snapshot one owns the subvolume or has the second and third; to remove it, the first.
          CapabilityBoundingSet = [
            "CAP_SYS_ADMIN"
            "CAP_FOWNER"
            "CAP_DAC_OVERRIDE"
          ];
          ReadWritePaths = writable one ++ [
            one.snapshot.subvolume
            (builtins.dirOf one.snapshot.at)
          ];
          ProtectHome = true;
        }
      );
  };
in
{
  imports = [ ./common.nix ];

  options.services.replicator.state = lib.mkOption {
    type = lib.types.attrsOf (lib.types.submodule settings);
    default = { };
    example = lib.literalExpression ''{ shop = { folders = [ "/var/lib/shop" ]; postgresql = [ "shop" ]; }; }'';
    description = ''
      What services keep, and how one moment of it is made. Services may register themselves: without
      `services.replicator.node.enable` nothing comes of it.
    '';
  };

  config = lib.mkIf (states != { }) {
    assertions = lib.concatLists (
      lib.mapAttrsToList (state: one: [
        {
          assertion = name.check state;
          message = "services.replicator.state.\"${state}\" cannot be a state's name: letters, digits, - and _, as it becomes part of a unit's.";
        }
        {
          assertion = one.folders != [ ] || captureOf one != "" || one.nextcloud.enable;
          message = "services.replicator.state.${state} keeps nothing: name folders, or what is to be captured.";
        }
        {
          assertion = lib.length (kindsOf one) < 2;
          message = "services.replicator.state.${state} captures ${lib.concatStringsSep " and " (kindsOf one)}, which let in users of their own: make a state of each, and give both the same dataset.";
        }
        {
          assertion =
            !one.nextcloud.enable
            || cloudType == "sqlite"
            || builtins.match "/.*|localhost.*" cloudHost != null;
          message = "services.replicator.state.${state}.nextcloud dumps a database of this host, and services.nextcloud.config.dbhost is ${cloudHost}: leave nextcloud.enable out, and write a capture that reaches it.";
        }
        {
          assertion = one.user != node.user;
          message = "services.replicator.state.${state}.user is the node's own user: a capture runs as the user whose data it is.";
        }
        {
          assertion = one.sqlite == { } || one.user != "root";
          message = "services.replicator.state.${state}.user: name the owner of the SQLite files, so that no unit of root opens them.";
        }
        {
          assertion = (one.snapshot.subvolume == null) == (one.snapshot.at == null);
          message = "services.replicator.state.${state}.snapshot needs subvolume and at, both or neither.";
        }
        {
          assertion = one.snapshot.subvolume == null || one.user == "root";
          message = "services.replicator.state.${state}.snapshot is made by root: leave user as it is.";
        }
      ]) states
    );

    services.replicator.node.datasets = lib.mkMerge (
      lib.mapAttrsToList (state: one: {
        ${one.dataset} = {
          paths =
            one.folders
            ++ lib.optional one.nextcloud.enable cloudData
            ++ lib.optional (captureOf one != "") (dumps state);
          captures = lib.optional (captured ? ${state}) state;
          releases = lib.optional (released ? ${state}) state;
        };
      }) states
    );

    systemd.tmpfiles.settings."20-replicator-captures" = {
      ${notes}.d = {
        mode = "0755";
        user = "root";
        group = "root";
      };
      ${node.dumpDir}.d = {
        mode = "0711";
        user = "root";
        group = "root";
      };
    }
    // lib.mapAttrs' (
      state: one:
      lib.nameValuePair (dumps state) {
        d = {
          mode = "0700";
          inherit (one) user group;
        };
      }
    ) captured;

    systemd.services =
      lib.mapAttrs' (
        state: one:
        lib.nameValuePair "replicator-capture-${state}" (
          lib.recursiveUpdate (unit one) {
            description = "replicator: one moment of ${state}";
            onFailure = cfg.onFailure;
            restartIfChanged = false;
            script = captureOf one;
            # Nothing is closed or dumped for a backup that there is not.
            unitConfig.ConditionPathExists = "${node.stateDir}/node/home.json";
            serviceConfig = {
              WorkingDirectory = dumps state;
              ReadWritePaths = (unit one).serviceConfig.ReadWritePaths ++ [ (dumps state) ];
              # As root, outside of the unit's walls: only a capture that went well leaves its note.
              ExecStartPre = [
                "+${pkgs.coreutils}/bin/rm -f ${notes}/${state}"
              ]
              ++ lib.optional (released ? ${state}) "+${pkgs.coreutils}/bin/touch ${closed state}";
              ExecStartPost = "+${pkgs.coreutils}/bin/touch ${notes}/${state}";
            };
          }
        )
      ) captured
      // lib.mapAttrs' (
        state: one:
        lib.nameValuePair "replicator-release-${state}" (
          lib.recursiveUpdate (unit one) {
            description = "replicator: ${state} goes on";
            onFailure = cfg.onFailure;
            restartIfChanged = false;
            # What no capture closed stays as its operator has it: in maintenance, or not set up yet.
            script =
              lib.optionalString (captured ? ${state}) "if ! [ -e ${closed state} ]; then exit 0; fi\n"
              + releaseOf one;
            # Not before the capture that it undoes has ended, and after a power cut too.
            after = [ "replicator-capture-${state}.service" ];
            wantedBy = [ "multi-user.target" ];
            serviceConfig.ExecStartPost = "+${pkgs.coreutils}/bin/rm -f ${done}/${state} ${closed state}";
          }
        )
      ) released
      // lib.optionalAttrs (captured != { } || released != { }) (
        {
          replicator-backup = around (builtins.attrNames states);
        }
        // lib.mapAttrs' (
          dataset: one:
          lib.nameValuePair "replicator-backup-${dataset}" (around (one.captures ++ one.releases))
        ) (lib.filterAttrs (_: one: one.onCalendar != null) node.datasets)
      );

    # The node's hook says "read"; whoever may undo it hears so from systemd.
    systemd.paths = lib.mapAttrs' (
      state: _:
      lib.nameValuePair "replicator-release-${state}" {
        wantedBy = [ "multi-user.target" ];
        pathConfig.PathExists = "${done}/${state}";
      }
    ) released;
  };
}
