# A provider: keeps objects that this machine cannot read, for tenants within their quotas.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.replicator;
  provider = cfg.provider;
  hardening = import ../lib/hardening.nix;
  sizes = import ../lib/sizes.nix { inherit lib; };
  roster = import ../lib/roster.nix { inherit lib; };
  toml = import ../lib/toml.nix { inherit lib; };
  settings = import ./settings.nix { inherit lib sizes; };
  exe = lib.getExe cfg.package;
  me = cfg.hosts.host.${cfg.name} or { };
  known = key: me.${key} or null;

  bracketed = address: if lib.hasInfix ":" address then "[${address}]" else address;
  listen = "${bracketed provider.listenAddress}:${toString provider.port}";
  file = settings.checked pkgs cfg.package "replicator-provider.toml" (
    toml (lib.recursiveUpdate declared provider.settings)
  );
  declared = {
    provider = {
      data = if inBucket then provider.bucket.url else provider.dataDir;
      s3_endpoint = provider.bucket.endpoint;
      s3_region = provider.bucket.region;
      inherit (provider)
        capacity
        owner
        site
        region
        country
        lock
        grace
        identity
        notice
        window
        streams
        down
        up
        ;
      zone = if provider.window == null || provider.window == "always" then null else provider.zone;
      inherit listen;
      advertise = if provider.advertise == [ ] then null else provider.advertise;
      pull_from = provider.pullFrom;
      for_members = provider.forMembers;
      inherit (provider) via;
      relay_for = provider.relayFor;
      relay_rate = provider.relayRate;
    };
    tenant = provider.tenants;
    notify = settings.notify cfg.notify;
    metrics = {
      textfile = provider.metricsFile;
      listen = provider.metricsListen;
    };
  };

  inBucket = provider.bucket.url != null;
  paths = lib.optional (!inBucket) provider.dataDir ++ [ provider.stateDir ];
  environment = {
    REPLICATOR_HOME = provider.stateDir;
    REPLICATOR_CONFIG = "${file}";
    HOME = provider.stateDir;
  };
  confined = hardening.base // {
    User = provider.user;
    Group = provider.group;
    # Without the folder of the metrics it serves, and says so.
    ReadWritePaths =
      paths
      ++ lib.optional (provider.metricsFile != null) "-${builtins.dirOf (toString provider.metricsFile)}";
    LoadCredential =
      lib.optional (provider.identityFile != null) "replicator-identity:${provider.identityFile}"
      ++ lib.optional (
        provider.bucket.credentialsFile != null
      ) "replicator-s3:${provider.bucket.credentialsFile}"
      ++ lib.mapAttrsToList (name: path: "${name}:${path}") cfg.notifyCredentials;
  };
  # Neither folder may be made on the disk below a mount point that is empty.
  mounted = {
    RequiresMountsFor = paths;
  }
  // lib.optionalAttrs (provider.mountPoint != null) {
    AssertPathIsMountPoint = provider.mountPoint;
  };
  fits = lower: upper: sizes.parse lower <= sizes.parse upper;
  days = text: sizes.number (lib.removeSuffix "d" text);
  command = pkgs.writeShellScriptBin "replicator-provider" ''
    # The program as the provider's own user, in its home: replicator-provider provider status
    ${lib.optionalString (provider.bucket.credentialsFile != null) ''
      # The bucket's keys, which root may read here and systemd hands to the daemon.
      while IFS= read -r line; do
        case "$line" in AWS_ACCESS_KEY_ID=* | AWS_SECRET_ACCESS_KEY=*) export "$line" ;; esac
      done < ${lib.escapeShellArg provider.bucket.credentialsFile}
    ''}
    exec ${pkgs.util-linux}/bin/setpriv --reuid=${provider.user} --regid=${provider.group} --init-groups env REPLICATOR_HOME=${lib.escapeShellArg provider.stateDir} REPLICATOR_CONFIG=${file} HOME=${lib.escapeShellArg provider.stateDir} ${exe} "$@"
  '';
  missing = option: value: hint: {
    assertion = value != null;
    message = "services.replicator.provider.${option} is not set: ${hint}.";
  };
in
{
  imports = [ ./common.nix ];

  options.services.replicator.provider = {
    enable = lib.mkEnableOption "this host as a provider: it keeps objects it cannot read, for tenants that are let in";

    user = lib.mkOption {
      type = lib.types.str;
      default = "replicator-provider";
      description = "The provider's own user; of a fixed id on hosts whose disk outlives the system.";
    };

    group = lib.mkOption {
      type = lib.types.str;
      default = provider.user;
      defaultText = lib.literalMD "as `user`";
      description = "The provider's own group.";
    };

    uid = lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      example = 794;
      description = "A fixed id for user and group, so that a disk which is moved to a new system still belongs to them. Null: NixOS chooses, and remembers in /var/lib/nixos.";
    };

    stateDir = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/replicator-provider";
      description = "The home: identity and rows. Must outlive a reboot; without it tenants see a stranger.";
    };

    dataDir = lib.mkOption {
      type = lib.types.path;
      default =
        if provider.mountPoint == null then
          "/var/lib/replicator-objects"
        else
          "${provider.mountPoint}/objects";
      defaultText = lib.literalMD "`objects` below `mountPoint`, else `/var/lib/replicator-objects`";
      description = "Where objects lie, and nothing else.";
    };

    mountPoint = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/srv/replicator";
      description = "The disk that has to be mounted before anything starts.";
    };

    diskSize = lib.mkOption {
      type = lib.types.nullOr sizes.type;
      default = null;
      example = "4T";
      description = "How large that disk is, so that an offer above it is refused when the system is built.";
    };

    bucket = {
      url = lib.mkOption {
        type = lib.types.nullOr (lib.types.strMatching "s3://[^/ ]+(/[^ ]*)?");
        default = null;
        example = "s3://attic/friends";
        description = "A bucket of an S3-compatible server that keeps the objects in place of `dataDir`; the home stays on this machine.";
      };
      endpoint = lib.mkOption {
        type = lib.types.nullOr (lib.types.strMatching "https?://[^ ]+");
        default = null;
        example = "https://s3.example.org";
        description = "Where that server answers. Null: Amazon's own.";
      };
      region = lib.mkOption {
        type = lib.types.nullOr lib.types.singleLineStr;
        default = null;
        description = "Its region, if it asks for one.";
      };
      credentialsFile = lib.mkOption {
        type = lib.types.nullOr lib.types.externalPath;
        default = null;
        example = "/run/secrets/replicator-s3";
        description = "Its keys, two lines: `AWS_ACCESS_KEY_ID=...` and `AWS_SECRET_ACCESS_KEY=...`. Handed to the daemon as a credential.";
      };
    };

    settings = lib.mkOption {
      type = settings.free;
      default = { };
      example = {
        provider.streams = 2;
      };
      description = "Further tables and keys of config.toml, for what has no option here; the program refuses what it does not know when the system is built.";
    };

    capacity = lib.mkOption {
      type = lib.types.nullOr sizes.type;
      default = known "capacity";
      defaultText = lib.literalMD "the roster's";
      example = "500G";
      description = "Bytes that are offered to all tenants together.";
    };

    owner = lib.mkOption {
      type = lib.types.nullOr lib.types.singleLineStr;
      default = known "owner";
      defaultText = lib.literalMD "the roster's";
      description = "Whose it is.";
    };

    site = lib.mkOption {
      type = lib.types.nullOr lib.types.singleLineStr;
      default = known "site";
      defaultText = lib.literalMD "the roster's";
      description = "The house or room.";
    };

    region = lib.mkOption {
      type = lib.types.nullOr lib.types.singleLineStr;
      default = known "region";
      defaultText = lib.literalMD "the roster's";
      description = "A part of the country that one flood, fire or power failure would hit as a whole.";
    };

    country = lib.mkOption {
      type = lib.types.nullOr (lib.types.strMatching "[A-Z]{2}");
      default = known "country";
      defaultText = lib.literalMD "the roster's";
      description = "Two-letter code.";
    };

    listenAddress = lib.mkOption {
      type = lib.types.str;
      default = if known "address" == null then "0.0.0.0" else me.address;
      defaultText = lib.literalMD "the host's address in the mesh, else `0.0.0.0`";
      description = "Where the daemon listens.";
    };

    port = lib.mkOption {
      type = lib.types.port;
      default = me.port or 7144;
      defaultText = lib.literalMD "the roster's, else 7144";
      description = "TCP port that the daemon listens on.";
    };

    advertise = lib.mkOption {
      type = lib.types.listOf (lib.types.strMatching "[^/ ]+:[0-9]{1,5}");
      default = lib.optional (
        known "address" != null
      ) "${bracketed me.address}:${toString provider.port}";
      defaultText = lib.literalMD "the host's address in the mesh";
      example = [ "alice.example.org:7144" ];
      description = "HOST:PORT that tenants reach it at, if it is not where it listens.";
    };

    lock = lib.mkOption {
      type = lib.types.strMatching "[1-9][0-9]{0,3}d";
      default = "30d";
      description = "How long nothing that was received can be deleted. Less than 30 days needs `shortLock`.";
    };

    grace = lib.mkOption {
      type = lib.types.strMatching "[1-9][0-9]{0,3}d";
      default = "14d";
      description = "How long a deletion waits after it was asked for. Less than 14 days needs `shortLock`.";
    };

    notice = lib.mkOption {
      type = lib.types.nullOr (lib.types.strMatching "[0-9]{1,4}[smhdw]");
      default = null;
      example = "60d";
      description = "How long before it leaves or shrinks it says so to its tenants; a promise in its offer. Null: as `replicator-provider provider set --notice` left it.";
    };

    shortLock = lib.mkEnableOption "less time than tenants expect between a theft of their maintenance key and the loss of their data";

    window = lib.mkOption {
      type = lib.types.nullOr (
        lib.types.strMatching "always|[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]"
      );
      default = null;
      example = "22:00-06:00";
      description = "When objects above 1 MiB are taken; what is fetched has no hours. Null: as `replicator-provider provider set --window` left it, at first always.";
    };

    zone = lib.mkOption {
      type = lib.types.nullOr lib.types.singleLineStr;
      default = config.time.timeZone or null;
      defaultText = lib.literalMD "`time.timeZone`";
      example = "Europe/Stockholm";
      description = "The window's time zone. Null: the machine's.";
    };

    streams = lib.mkOption {
      type = lib.types.nullOr (lib.types.ints.between 1 16);
      default = null;
      description = "Uploads of one tenant at a time. Null: as `replicator-provider provider set --streams` left it, at first 3.";
    };

    down = lib.mkOption {
      type = lib.types.nullOr (lib.types.either (lib.types.enum [ "unlimited" ]) sizes.type);
      default = null;
      example = "2M";
      description = "Bytes a second that all tenants together send at the most, or `unlimited`. Null: as `replicator-provider provider set --down` left it, at first unlimited.";
    };

    up = lib.mkOption {
      type = lib.types.nullOr (lib.types.either (lib.types.enum [ "unlimited" ]) sizes.type);
      default = null;
      example = "5M";
      description = "Bytes a second that all tenants together fetch at the most, restores too, or `unlimited`. Null: as `replicator-provider provider set --up` left it, at first unlimited.";
    };

    pullFrom = lib.mkOption {
      type = lib.types.nullOr (
        lib.types.listOf (lib.types.strMatching "public|nobody|[0-9a-fA-F.:]+(/[0-9]{1,3})?")
      );
      default = null;
      example = [
        "public"
        "10.8.0.0/24"
      ];
      description = "Where tenants may send it for copies at other providers: `public`, networks such as that of a VPN, or `nobody`. Null: as `replicator-provider provider set --pull-from` left it, at first public.";
    };

    identity = lib.mkOption {
      type = lib.types.nullOr (lib.types.strMatching "[a-z2-7]{52}");
      default = known "identity";
      defaultText = lib.literalMD "the roster's";
      description = "Who this provider has to be; with another key it does not start.";
    };

    identityFile = lib.mkOption {
      type = lib.types.nullOr lib.types.externalPath;
      default = null;
      example = "/run/secrets/replicator-identity";
      description = "The private key, NAME.identity of `replicator host new NAME`. Null: the first start makes one.";
    };

    tenants = lib.mkOption {
      type = lib.types.attrsOf (
        lib.types.submodule {
          options = {
            root = lib.mkOption {
              type = lib.types.strMatching "[0-9a-f]{64}";
              description = "The tenant's root key: the id of root in `replicator key list --json` on its keeper.";
            };
            quota = lib.mkOption {
              type = sizes.type;
              example = "400G";
              description = "Bytes that this tenant may store.";
            };
          };
        }
      );
      default = if cfg.roster == null then { } else roster.tenantsOf cfg.hosts cfg.name;
      defaultText = lib.literalMD "the roster's tenants";
      description = "Tenants that need no invite. Others are let in by `replicator-provider provider invite`.";
    };

    forMembers = lib.mkOption {
      type = lib.types.nullOr sizes.type;
      default = null;
      example = "50G";
      description = "Bytes that each member of the group may store that this provider's home is in, without an invite of its own. Null: as `replicator-provider provider set --for-members` left it.";
    };

    via = lib.mkOption {
      type = lib.types.nullOr (
        lib.types.listOf (lib.types.strMatching "nobody|[^/ ]+:[0-9]{1,5}/[a-z2-7]{52}")
      );
      default = null;
      example = [ "birch.example.org:7144/gyqifwzaw2cmxxgoudrdzui6wvrounlcy27fygy7roaij6u3khkq" ];
      description = "Providers at which this one waits for tenants because nobody can dial it, or `nobody`. Null: as `replicator-provider provider set` left it.";
    };

    relayFor = lib.mkOption {
      type = lib.types.nullOr (lib.types.listOf (lib.types.strMatching "members|nobody|[a-z2-7]{52}"));
      default = null;
      example = [ "members" ];
      description = "Whose bytes this one passes on, which it cannot read: identities of providers, `members` of its group, or `nobody`. Null: as `replicator-provider provider set` left it.";
    };

    relayRate = lib.mkOption {
      type = lib.types.nullOr sizes.type;
      default = null;
      example = "2M";
      description = "Bytes a second that are passed on for each of them.";
    };

    openFirewall = lib.mkEnableOption "the port on all interfaces";

    openFirewallOn = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "wg0" ];
      description = "Interfaces on which the port is open. Closed on all others.";
    };

    memoryMax = lib.mkOption {
      type = lib.types.str;
      default = "1G";
      description = "Above this the daemon is ended and started again.";
    };

    command = lib.mkOption {
      type = lib.types.package;
      readOnly = true;
      internal = true;
      default = command;
      defaultText = lib.literalMD "a package";
      description = "The program as this user, in this home.";
    };

    metricsFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/var/lib/prometheus-node-exporter/replicator-provider.prom";
      description = "Where its state is written every half hour, as a text file for Prometheus' node exporter. Its folder must exist and be writable by the provider's user.";
    };

    metricsListen = lib.mkOption {
      type = lib.types.nullOr (lib.types.strMatching "(127\\.0\\.0\\.1|localhost|\\[::1]):[0-9]{1,5}");
      default = null;
      example = "127.0.0.1:9144";
      description = "Where Prometheus is answered, on this machine alone: what it says names tenants.";
    };
  };

  config = lib.mkIf provider.enable {
    assertions = [
      (missing "capacity" provider.capacity "say how much is offered, such as \"500G\"")
      (missing "owner" provider.owner "say whose it is; copies are spread over owners")
      (missing "site" provider.site "say in which house it stands; copies are spread over sites")
      (missing "region" provider.region "say what one disaster would hit as a whole")
      (missing "country" provider.country "give its two-letter code, such as \"SE\"")
      {
        assertion =
          provider.capacity == null || provider.diskSize == null || fits provider.capacity provider.diskSize;
        message = "services.replicator.provider.capacity of ${toString provider.capacity} is more than the disk of ${toString provider.diskSize}: offer less, or correct diskSize.";
      }
      {
        assertion =
          provider.capacity == null
          ||
            sizes.sum (map (tenant: tenant.quota) (builtins.attrValues provider.tenants))
            <= sizes.parse provider.capacity;
        message = "services.replicator.provider.tenants: their quotas together are more than the capacity of ${toString provider.capacity}: lower a quota, or offer more.";
      }
      {
        assertion =
          provider.capacity == null
          || provider.forMembers == null
          || fits provider.forMembers provider.capacity;
        message = "services.replicator.provider.forMembers of ${toString provider.forMembers} is more than the capacity of ${toString provider.capacity}: lower it, or offer more.";
      }
      {
        assertion = provider.identity == null || provider.identityFile != null;
        message = "services.replicator.provider.identityFile is not set, and the roster says who this provider is: bring the key ${cfg.name}.identity that `replicator host new ${cfg.name}` wrote, by sops, agenix or --extra-files.";
      }
      {
        assertion = provider.shortLock || (days provider.lock >= 30 && days provider.grace >= 14);
        message = "services.replicator.provider: a lock of ${provider.lock} and a grace of ${provider.grace} are less than tenants expect (30d, 14d): raise them, or set shortLock and tell your tenants.";
      }
      {
        assertion = !lib.hasPrefix "${toString provider.dataDir}/" "${toString provider.stateDir}/";
        message = "services.replicator.provider.stateDir lies in dataDir, which holds objects and nothing else: choose another.";
      }
      {
        assertion =
          inBucket
          || lib.all (key: provider.bucket.${key} == null) [
            "endpoint"
            "region"
            "credentialsFile"
          ];
        message = "services.replicator.provider.bucket says how a bucket is reached, and no bucket: set bucket.url, such as \"s3://attic/friends\".";
      }
      {
        assertion = !inBucket || provider.bucket.credentialsFile != null;
        message = "services.replicator.provider.bucket.credentialsFile is not set: bring the bucket's keys by sops or agenix.";
      }
      {
        assertion =
          inBucket
          || provider.mountPoint == null
          || lib.hasPrefix "${toString provider.mountPoint}/" "${toString provider.dataDir}/";
        message = "services.replicator.provider.dataDir is not on ${toString provider.mountPoint}: put it there, or name the disk that it is on.";
      }
      {
        assertion = provider.user != "root";
        message = "services.replicator.provider.user is root: a daemon that strangers talk to has a user of its own.";
      }
    ];

    users.users = lib.mkIf (provider.user == "replicator-provider") {
      replicator-provider = {
        isSystemUser = true;
        inherit (provider) group;
        uid = lib.mkIf (provider.uid != null) provider.uid;
      };
    };
    users.groups = lib.mkIf (provider.group == "replicator-provider") {
      replicator-provider.gid = lib.mkIf (provider.uid != null) provider.uid;
    };

    environment.systemPackages = [
      cfg.package
      provider.command
    ];
    environment.etc."replicator/provider.toml".source = file;

    networking.firewall = {
      allowedTCPPorts = lib.mkIf provider.openFirewall [ provider.port ];
      interfaces = lib.genAttrs provider.openFirewallOn (_: {
        allowedTCPPorts = [ provider.port ];
      });
    };

    systemd.services = {
      # Folders are made when the disk is there, not by tmpfiles before it is.
      replicator-provider-folders = {
        description = "replicator: folders of the provider";
        unitConfig = mounted;
        restartIfChanged = false;
        serviceConfig =
          hardening.base
          // hardening.offline
          // {
            Type = "oneshot";
            RemainAfterExit = true;
            # Gives what it makes to the provider's user, below folders that are root's.
            CapabilityBoundingSet = [
              "CAP_CHOWN"
              "CAP_FOWNER"
              "CAP_DAC_OVERRIDE"
            ];
            PrivateUsers = false;
            SystemCallFilter = [ "@system-service" ];
            # The folders themselves are not there yet.
            ReadWritePaths = lib.unique (map (path: builtins.dirOf path) paths);
            ExecStart = map (
              path:
              "${pkgs.coreutils}/bin/install -d -m 0700 -o ${provider.user} -g ${provider.group} ${lib.escapeShellArg path}"
            ) paths;
          };
      };

      replicator-provider = {
        description = "replicator: keep objects for others";
        inherit environment;
        wantedBy = [ "multi-user.target" ];
        wants = [ "network-online.target" ];
        requires = [ "replicator-provider-folders.service" ];
        after = [
          "network-online.target"
          "replicator-provider-folders.service"
        ]
        ++ lib.optional (cfg.mesh.enable or false) "wireguard-${cfg.mesh.interface}.service";
        onFailure = cfg.onFailure;
        # An address of a VPN may come a little later than the machine.
        startLimitIntervalSec = 600;
        startLimitBurst = 20;
        unitConfig = mounted;
        serviceConfig = confined // {
          # Says when it answers, so that what comes after it is not refused.
          Type = "notify";
          NotifyAccess = "main";
          ExecStart = "${exe} provider serve";
          Restart = "on-failure";
          RestartSec = "5s";
          # Its database and threads answer, or it is started anew.
          WatchdogSec = "10min";
          # Requests in flight are finished first.
          TimeoutStopSec = "5min";
          MemoryMax = provider.memoryMax;
          # Files of 16 MiB for many tenants at once.
          LimitNOFILE = 16384;
        };
      };
    };
  };
}
