# What the modules make of a configuration, and what they refuse. Each refusal is a sentence that says what to do.
{
  lib,
  self,
  nixosSystem,
  system,
  ...
}:
let
  root = lib.concatStrings (lib.genList (_: "ab") 32);
  identity = letter: lib.concatStrings (lib.genList (_: letter) 52);
  key = letter: lib.concatStrings (lib.genList (_: letter) 43) + "=";
  roster = {
    host = {
      birch = {
        identity = identity "b";
        wireguard = key "B";
        address = "fd12::2";
        endpoint = "birch.example.org:51820";
        capacity = "4T";
        owner = "collective";
        site = "umea-cellar";
        region = "vasterbotten";
        country = "SE";
      };
      rowan = {
        identity = identity "c";
        wireguard = key "C";
        address = "fd12::3";
        capacity = "2T";
        owner = "rut";
        site = "rut-home";
        region = "oslo";
        country = "NO";
      };
      aspen = {
        identity = identity "d";
        wireguard = key "D";
        address = "fd12::4";
        capacity = "1T";
        owner = "ali";
        site = "ali-home";
        region = "skane";
        country = "SE";
      };
      shop = {
        wireguard = key "E";
        address = "fd12::9";
        owner = "collective";
        site = "umea-office";
      };
    };
    tenant.bjorkby = {
      inherit root;
      quota = "500G";
      quotas.aspen = "200G";
    };
  };

  system' =
    modules:
    (nixosSystem {
      inherit system;
      modules = [
        {
          networking.hostName = lib.mkDefault "shop";
          system.stateVersion = lib.mkDefault "26.05";
          # What a machine needs that is to be built; nothing of it is looked at.
          boot.loader.grub.enable = lib.mkDefault false;
          fileSystems."/" = lib.mkDefault {
            device = "/dev/vda";
            fsType = "ext4";
          };
        }
      ]
      ++ modules;
    }).config;
  failed = config: map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
  # The sentence of the first assertion that failed, or "evaluates".
  said = modules: lib.concatStringsSep "\n" (failed (system' modules));
  says = modules: text: {
    expr = lib.hasInfix text (said modules);
    expected = true;
  };
  refuses = modules: {
    expr =
      (builtins.tryEval (
        builtins.deepSeq (said modules) (builtins.seq (system' modules).system.build.toplevel.drvPath true)
      )).success;
    expected = false;
  };
  refusesOption = modules: path: {
    expr =
      (builtins.tryEval (builtins.deepSeq (lib.attrByPath path null (system' modules)) true)).success;
    expected = false;
  };

  node = {
    imports = [ self.nixosModules.node ];
    services.replicator.node = {
      enable = true;
      datasets.photos = {
        paths = [ "/srv/photos" ];
        copies = 3;
        minimum = 2;
        exclude = [ "*.tmp" ];
        keep.daily = 14;
      };
    };
  };
  provider = {
    imports = [ self.nixosModules.provider ];
    networking.hostName = "birch";
    services.replicator.provider = {
      enable = true;
      capacity = "500G";
      owner = "alice";
      site = "cellar";
      region = "umea";
      country = "SE";
    };
  };
  host = {
    imports = [ self.nixosModules.host ];
    networking.hostName = "birch";
    services.replicator = {
      inherit roster;
      mesh.privateKeyFile = "/keys/wireguard";
      host = {
        enable = true;
        identityFile = "/keys/identity";
        disk = {
          devices = [ "/dev/disk/by-id/ata-BIRCH" ];
          luksKeyFile = "/keys/luks";
          size = "8T";
        };
      };
    };
  };
  helpers = {
    imports = [ self.nixosModules.helpers ];
    services.replicator = {
      maintainer = {
        enable = true;
        besideNode = true;
      };
      drillHost = {
        enable = true;
        besideNode = true;
        passphraseFile = "/run/secrets/passphrase";
      };
    };
  };
  hosting = {
    imports = [ self.nixosModules.hosting ];
    services.replicator.hosting = {
      enable = true;
      atATime = 3;
      up = "10M";
      tenants = {
        anna.datasets.files.paths = [ "/srv/anna" ];
        bo = { };
      };
    };
  };
  stated = {
    imports = [ node ];
    services.replicator.state.shop = {
      folders = [ "/var/lib/shop" ];
      user = "shop";
      capture = "echo dump > shop.sql";
      release = "echo open";
    };
  };
  with' = base: more: [
    base
    more
  ];
  service = config: name: config.systemd.services.${name};
  configOf = config: config.environment.etc."replicator/node.toml".source;
  text =
    source:
    if builtins.isAttrs source then
      source.text or (builtins.readFile source)
    else
      builtins.readFile source;

  n = system' [ node ];
  p = system' [ provider ];
  h = system' [ host ];
  s = system' [ stated ];
  inRoster = system' (with' node { services.replicator = { inherit roster; }; });
  # The order of definitions is the module system's own business.
  sorted = lib.sort (a: b: a < b);
  mine = lib.filterAttrs (name: _: lib.hasPrefix "replicator" name);
  # Everything that a unit of a node may be given: nothing that opens restore, owner or root keys.
  secretsOf =
    config:
    lib.concatMap (unit: lib.toList (unit.serviceConfig.LoadCredential or [ ])) (
      builtins.attrValues (mine config.systemd.services)
    );
in
lib.runTests {
  # --- nothing is there unless it is asked for
  testDisabledLeavesNoTrace = {
    expr =
      let
        config = system' [ self.nixosModules.default ];
      in
      {
        units = builtins.attrNames (mine config.systemd.services);
        timers = builtins.attrNames (mine config.systemd.timers);
        users = builtins.attrNames (mine config.users.users);
        failed = failed config;
      };
    expected = {
      units = [ ];
      timers = [ ];
      users = [ ];
      failed = [ ];
    };
  };
  testStatesWithoutANodeComeToNothing = {
    expr = builtins.attrNames (
      mine
        (system' [
          self.nixosModules.node
          { services.replicator.state.shop.folders = [ "/var/lib/shop" ]; }
        ]).systemd.services
    );
    expected = [ ];
  };

  # --- node
  testNodeHolds = {
    expr = failed n;
    expected = [ ];
  };
  testNodeUnits = {
    expr = builtins.attrNames (mine n.systemd.services);
    expected = [
      "replicator-backup"
      "replicator-health"
      "replicator-join"
      "replicator-repair"
      "replicator-verify"
    ];
  };
  testNodeTimersAreCaughtUpAndSpread = {
    expr = lib.mapAttrs (_: timer: {
      inherit (timer.timerConfig) OnCalendar Persistent FixedRandomDelay;
    }) (mine n.systemd.timers);
    expected =
      lib.mapAttrs
        (_: OnCalendar: {
          inherit OnCalendar;
          Persistent = true;
          FixedRandomDelay = true;
        })
        {
          replicator-backup = "*-*-* 01:00:00";
          replicator-health = "*-*-* 12:00:00";
          replicator-repair = "*-*-* 04:00:00";
          replicator-verify = "Sun *-*-* 05:00:00";
        };
  };
  testANightIsNotEndedByANewConfiguration = {
    expr = map (name: (service n name).restartIfChanged) [
      "replicator-backup"
      "replicator-repair"
      "replicator-verify"
    ];
    expected = [
      false
      false
      false
    ];
  };
  testANodeHasOneCapabilityAndNoSecretOfAKeeper = {
    expr = {
      ambient = (service n "replicator-backup").serviceConfig.AmbientCapabilities;
      verify = (service n "replicator-verify").serviceConfig ? AmbientCapabilities;
      secrets = secretsOf n;
      user = (service n "replicator-backup").serviceConfig.User;
    };
    expected = {
      ambient = [ "CAP_DAC_READ_SEARCH" ];
      verify = false;
      secrets = [ ];
      user = "replicator";
    };
  };
  testAGrantComesAsACredential = {
    expr = secretsOf (
      system' (with' node { services.replicator.node.grantFile = "/run/secrets/grant"; })
    );
    expected = [ "replicator-grant:/run/secrets/grant" ];
  };
  testTheFileSaysWhatTheOptionsSay = {
    expr = builtins.fromTOML (text (configOf n));
    expected = {
      dataset.photos = {
        copies = 3;
        exclude = [ "*.tmp" ];
        hook_failure = "fail";
        hook_timeout = "10m";
        keep.daily = 14;
        keep_caches = false;
        minimum = 2;
        one_file_system = false;
        paths = [ "/srv/photos" ];
        snapshot = "none";
      };
    };
  };
  testAnArchiveBesideHasItsRepositoryAndItsPassphraseAndNoOtherUnitDoes = {
    expr =
      let
        config = system' (
          with' node {
            services.replicator.node = {
              datasets.photos.alsoBorg = "/srv/borg";
              borg.passphraseFile = "/run/secrets/borg";
            };
            services.replicator.notifyCredentials.topic = "/run/secrets/topic";
          }
        );
        backup = service config "replicator-backup";
      in
      {
        said = (builtins.fromTOML (text (configOf config))).dataset.photos.also_borg;
        writes = lib.elem "-/srv/borg" backup.serviceConfig.ReadWritePaths;
        given = backup.serviceConfig.LoadCredential;
        command = backup.environment.BORG_PASSCOMMAND;
        others = lib.any (lib.hasSuffix "/srv/borg") (service config "replicator-repair")
        .serviceConfig.ReadWritePaths;
      };
    expected = {
      said = "/srv/borg";
      writes = true;
      given = [
        "topic:/run/secrets/topic"
        "borg-passphrase:/run/secrets/borg"
      ];
      command = "cat %d/borg-passphrase";
      others = false;
    };
  };
  testTheWindowsEndStopsWhatRuns = {
    expr =
      let
        config = system' (with' node { services.replicator.node.window.end = "07:00"; });
      in
      [
        (service config "replicator-window-end").conflicts
        config.systemd.timers.replicator-window-end.timerConfig.OnCalendar
      ];
    expected = [
      [
        "replicator-backup.service"
        "replicator-repair.service"
        "replicator-verify.service"
      ]
      "*-*-* 07:00:00"
    ];
  };
  testWhoToTell = {
    expr =
      (service (system' (
        with' node { services.replicator.onFailure = [ "mail.service" ]; }
      )) "replicator-health").onFailure;
    expected = [ "mail.service" ];
  };
  testBigFoldersCanLieElsewhere = {
    expr =
      let
        config = system' (
          with' node {
            services.replicator.node = {
              stateDir = "/srv/storage/replicator";
              spool = "/mnt/big/spool";
              cache = "/mnt/big/cache";
            };
          }
        );
      in
      [
        (service config "replicator-backup").serviceConfig.ReadWritePaths
        (builtins.fromTOML (text (configOf config))).node
      ];
    expected = [
      [
        "/srv/storage/replicator"
        "/mnt/big/spool"
        "/mnt/big/cache"
      ]
      {
        spool = "/mnt/big/spool";
        cache = "/mnt/big/cache";
      }
    ];
  };
  testPeersFollowFromTheRoster = {
    expr = lib.mapAttrs (_: peer: { inherit (peer) own; }) inRoster.services.replicator.node.peers;
    expected = {
      aspen.own = false;
      birch.own = true;
      rowan.own = false;
    };
  };
  testAPathThatIsNoTextIsNamedAndNotCopied = {
    expr =
      (builtins.fromTOML (
        text (configOf (system' (with' node { services.replicator.node.datasets.etc.paths = [ /etc ]; })))
      )).dataset.etc.paths;
    expected = [ "/etc" ];
  };
  testTheLineIsLimitedByNightAndByDay = {
    expr =
      (builtins.fromTOML (
        text (
          configOf (
            system' (
              with' node {
                services.replicator.node = {
                  window.end = "07:00";
                  rate = {
                    up = "5M";
                    upDay = "500k";
                  };
                };
              }
            )
          )
        )
      )).line;
    expected = {
      night = "01:00-07:00";
      up = "5M";
      up_day = "500k";
    };
  };
  testRefusesARateByDayWithoutANight = says (with' node {
    services.replicator.node.rate.upDay = "500k";
  }) "say when it ends, with window.end";
  testWhatHasNoOptionCanBeSaidAsInTheFile = {
    expr =
      (builtins.fromTOML (
        text (
          configOf (
            system' (
              with' node {
                services.replicator.node.settings.node.spool_limit = "9G";
              }
            )
          )
        )
      )).node;
    expected.spool_limit = "9G";
  };
  testTheSameWithoutTheMisspeltOptionIsBuilt = {
    expr =
      (builtins.tryEval (builtins.seq (system' [ node ]).system.build.toplevel.drvPath true)).value;
    expected = true;
  };
  testADatasetBesideTheNightsHasItsOwnTimer = {
    expr =
      (system' (with' node { services.replicator.node.datasets.photos.onCalendar = "hourly"; }))
      .systemd.timers.replicator-backup-photos.timerConfig.OnCalendar;
    expected = "hourly";
  };

  # --- states
  testAStateIsPartOfItsDataset = {
    expr = s.services.replicator.node.datasets.shop.paths;
    expected = [
      "/var/lib/shop"
      "/var/lib/replicator-dumps/shop-dump"
    ];
  };
  testACaptureRunsBeforeTheBackupAsTheUserWhoseDataItIs = {
    expr = {
      inherit ((service s "replicator-capture-shop").serviceConfig) User;
      wants = sorted (service s "replicator-backup").wants;
      after = lib.elem "replicator-capture-shop.service" (service s "replicator-backup").after;
      secrets = secretsOf s;
    };
    expected = {
      User = "shop";
      wants = [
        "network-online.target"
        "replicator-capture-shop.service"
      ];
      after = true;
      secrets = [ ];
    };
  };
  testAReleaseIsWokenByTheDatasetsHookAndInEveryCase = {
    expr = {
      path = s.systemd.paths.replicator-release-shop.pathConfig.PathExists;
      stop = lib.hasInfix "start replicator-release-shop.service" (
        toString (service s "replicator-backup").serviceConfig.ExecStopPost
      );
    };
    expected = {
      path = "/run/replicator-backup/shop";
      stop = true;
    };
  };
  testStatesMayShareADataset = {
    expr =
      sorted
        (system' (
          with' stated {
            services.replicator.state.files = {
              folders = [ "/srv/files" ];
              dataset = "shop";
            };
          }
        )).services.replicator.node.datasets.shop.paths;
    expected = [
      "/srv/files"
      "/var/lib/replicator-dumps/shop-dump"
      "/var/lib/shop"
    ];
  };

  testACaptureWritesBesideWhatItReadsWhereItHasTo = {
    expr =
      let
        config = system' (
          with' node {
            services.nextcloud = {
              datadir = "/srv/cloud";
              secretFile = "/run/secrets/cloud";
              config.dbpassFile = "/run/secrets/db";
            };
            services.replicator.state = {
              cloud.nextcloud.enable = true;
              app = {
                user = "app";
                sqlite."app.db" = "/srv/app/app.db";
              };
            };
          }
        );
        capture = name: (service config "replicator-capture-${name}").serviceConfig;
      in
      {
        # Maintenance is a line of config.php, and a database in WAL mode has files beside it.
        writes = [
          (lib.elem "-/srv/cloud" (capture "cloud").ReadWritePaths)
          (lib.elem "-/srv/app" (capture "app").ReadWritePaths)
        ];
        # Without them occ asks for root.
        given = map sorted [
          (capture "cloud").LoadCredential
          (service config "replicator-release-cloud").serviceConfig.LoadCredential
          (capture "app").LoadCredential
        ];
        inherit (capture "cloud") User;
      };
    expected = {
      writes = [
        true
        true
      ];
      given = [
        [
          "dbpass:/run/secrets/db"
          "secret_file:/run/secrets/cloud"
        ]
        [
          "dbpass:/run/secrets/db"
          "secret_file:/run/secrets/cloud"
        ]
        [ ]
      ];
      User = "nextcloud";
    };
  };
  testWhatNoCaptureClosedIsNotOpened = {
    expr = {
      asked = lib.hasInfix "-e /var/lib/replicator-dumps/.closed-shop" (service s "replicator-release-shop")
      .script;
      noted = lib.any (lib.hasSuffix "touch /var/lib/replicator-dumps/.closed-shop") (service s "replicator-capture-shop")
      .serviceConfig.ExecStartPre;
    };
    expected = {
      asked = true;
      noted = true;
    };
  };

  # --- provider
  testProviderHolds = {
    expr = failed p;
    expected = [ ];
  };
  testAProviderSaysWhenItAnswersAndIsClosedFromOutside = {
    expr = {
      inherit ((service p "replicator-provider").serviceConfig) Type User;
      ports = p.networking.firewall.allowedTCPPorts;
      inherit (p.networking.firewall) interfaces;
    };
    expected = {
      Type = "notify";
      User = "replicator-provider";
      ports = [ ];
      interfaces = { };
    };
  };
  testAPortIsOpenedForOneInterface = {
    expr =
      (system' (with' provider { services.replicator.provider.openFirewallOn = [ "wg0" ]; }))
      .networking.firewall.interfaces.wg0.allowedTCPPorts;
    expected = [ 7144 ];
  };
  testTheDiskHasToBeThere = {
    expr =
      (service (system' (
        with' provider { services.replicator.provider.mountPoint = "/srv/disk"; }
      )) "replicator-provider").unitConfig;
    expected = {
      AssertPathIsMountPoint = "/srv/disk";
      RequiresMountsFor = [
        "/srv/disk/objects"
        "/var/lib/replicator-provider"
      ];
    };
  };
  testHoursOfAProviderAreInItsFile = {
    expr =
      (builtins.fromTOML (
        text
          (system' (
            with' provider {
              services.replicator.provider = {
                window = "22:00-06:00";
                zone = "Europe/Stockholm";
                streams = 2;
                down = "2M";
                up = "unlimited";
              };
            }
          )).environment.etc."replicator/provider.toml".source
      )).provider;
    expected =
      (builtins.fromTOML (text p.environment.etc."replicator/provider.toml".source)).provider
      // {
        window = "22:00-06:00";
        zone = "Europe/Stockholm";
        streams = 2;
        down = "2M";
        up = "unlimited";
      };
  };
  testObjectsInABucketHaveNoFolderAndTheirKeysAreACredential = {
    expr =
      let
        made = system' (
          with' provider {
            services.replicator.provider = {
              notice = "60d";
              forMembers = "50G";
              relayFor = [ "members" ];
              bucket = {
                url = "s3://attic/friends";
                endpoint = "https://s3.example.org";
                credentialsFile = "/run/secrets/s3";
              };
              settings.provider.advertise = [ "alice.example.org:7144" ];
            };
          }
        );
      in
      {
        failed = failed made;
        file = {
          inherit ((builtins.fromTOML (text made.environment.etc."replicator/provider.toml".source)).provider)
            data
            s3_endpoint
            notice
            relay_for
            for_members
            advertise
            ;
        };
        secrets = lib.unique (secretsOf made);
        writes = (service made "replicator-provider").serviceConfig.ReadWritePaths;
      };
    expected = {
      failed = [ ];
      file = {
        data = "s3://attic/friends";
        s3_endpoint = "https://s3.example.org";
        notice = "60d";
        for_members = "50G";
        relay_for = [ "members" ];
        advertise = [ "alice.example.org:7144" ];
      };
      secrets = [ "replicator-s3:/run/secrets/s3" ];
      writes = [ "/var/lib/replicator-provider" ];
    };
  };
  testRefusesAServerWithoutABucket = says (with' provider {
    services.replicator.provider.bucket.endpoint = "https://s3.example.org";
  }) "and no bucket: set bucket.url";
  testRefusesABucketWithoutKeys = says (with' provider {
    services.replicator.provider.bucket.url = "s3://attic";
  }) "bring the bucket's keys by sops or agenix";
  testWhomAProviderFetchesFromIsInItsFile = {
    expr =
      (builtins.fromTOML (
        text
          (system' (
            with' provider {
              services.replicator.provider.pullFrom = [
                "public"
                "10.8.0.0/24"
              ];
            }
          )).environment.etc."replicator/provider.toml".source
      )).provider.pull_from;
    expected = [
      "public"
      "10.8.0.0/24"
    ];
  };
  testAProvidersKeyComesAsACredential = {
    expr = secretsOf (
      system' (with' provider { services.replicator.provider.identityFile = "/run/secrets/key"; })
    );
    expected = [ "replicator-identity:/run/secrets/key" ];
  };

  testWhoIsToldIsInEveryFileAndSecretsAreCredentials = {
    expr =
      let
        told.services.replicator = {
          notify = {
            sendmail.to = [ "me@example.org" ];
            ping.url_file = "ping";
          };
          notifyCredentials.ping = "/run/secrets/ping";
        };
        made = system' [
          provider
          node
          helpers
          told
        ];
      in
      {
        files = lib.unique (
          map (name: (builtins.fromTOML (text made.environment.etc."replicator/${name}.toml".source)).notify)
            [
              "node"
              "provider"
              "maintainer"
              "drill"
            ]
        );
        secrets = lib.unique (
          map (name: lib.head (service made name).serviceConfig.LoadCredential) [
            "replicator-backup"
            "replicator-health"
            "replicator-provider"
            "replicator-prune"
            "replicator-drill"
            "replicator-maintainer-notify"
            "replicator-drill-notify"
          ]
        );
        network = (service made "replicator-health").serviceConfig ? PrivateNetwork;
        tells = lib.hasInfix "notify || true" (service made "replicator-health").script;
        quiet = lib.hasInfix "notify" (service n "replicator-health").script;
        asked = made.systemd.timers.replicator-drill-notify.timerConfig.Persistent;
      };
    expected = {
      files = [
        {
          sendmail = {
            program = "/run/wrappers/bin/sendmail";
            to = [ "me@example.org" ];
          };
          ping.url_file = "ping";
        }
      ];
      secrets = [ "ping:/run/secrets/ping" ];
      network = false;
      tells = true;
      quiet = false;
      asked = true;
    };
  };
  testMetricsAreTheProgramsOwnInAFolderThatMayBeMissing = {
    expr =
      let
        made = system' [
          provider
          node
          helpers
          {
            services.replicator = {
              node.metricsFile = "/var/lib/metrics/node.prom";
              provider.metricsFile = "/var/lib/metrics/provider.prom";
              provider.metricsListen = "127.0.0.1:9144";
              maintainer.metricsFile = "/var/lib/metrics/maintainer.prom";
            };
          }
        ];
        writes = name: lib.elem "-/var/lib/metrics" (service made name).serviceConfig.ReadWritePaths;
      in
      {
        files =
          map (name: (builtins.fromTOML (text made.environment.etc."replicator/${name}.toml".source)).metrics)
            [
              "node"
              "provider"
              "maintainer"
            ];
        writes = lib.all writes [
          "replicator-backup"
          "replicator-repair"
          "replicator-verify"
          "replicator-provider"
          "replicator-prune"
        ];
        others = writes "replicator-drill";
      };
    expected = {
      files = [
        { textfile = "/var/lib/metrics/node.prom"; }
        {
          listen = "127.0.0.1:9144";
          textfile = "/var/lib/metrics/provider.prom";
        }
        { textfile = "/var/lib/metrics/maintainer.prom"; }
      ];
      writes = true;
      others = false;
    };
  };
  testRefusesMetricsForTheWholeNetwork =
    refusesOption
      (with' provider {
        services.replicator.provider.metricsListen = "0.0.0.0:9144";
      })
      [
        "services"
        "replicator"
        "provider"
        "metricsListen"
      ];

  # --- host, mesh, enrolment
  testHostHolds = {
    expr = failed h;
    expected = [ ];
  };
  testAHostIsWhatItsStanzaSays = {
    expr = {
      inherit (h.services.replicator.provider)
        capacity
        owner
        identity
        listenAddress
        advertise
        tenants
        ;
    };
    expected = {
      capacity = "4T";
      owner = "collective";
      identity = identity "b";
      listenAddress = "fd12::2";
      advertise = [ "[fd12::2]:7144" ];
      tenants.bjorkby = {
        inherit root;
        quota = "500G";
      };
    };
  };
  testAnEncryptedDiskIsOpenedAtBoot = {
    expr = h.environment.etc.crypttab.text;
    expected = "replicator-replicator /dev/disk/by-partlabel/disk-replicator-objects /keys/luks luks,nofail,discard\n";
  };
  testTheDiskIsMountedSoThatNothingOnItRuns = {
    expr = {
      inherit (h.fileSystems."/srv/replicator") device fsType;
      options = sorted h.fileSystems."/srv/replicator".options;
    };
    expected = {
      device = "/dev/mapper/replicator-replicator";
      fsType = "xfs";
      options = [
        "noatime"
        "nodev"
        "noexec"
        "nofail"
        "nosuid"
        "prjquota"
      ];
    };
  };
  testServingWaitsForTheProof = {
    expr = lib.elem "replicator-enrol.service" (service h "replicator-provider").requires;
    expected = true;
  };
  testTheMeshHasEveryOtherHost = {
    expr =
      map
        (peer: {
          inherit (peer)
            name
            allowedIPs
            endpoint
            persistentKeepalive
            ;
        })
        (system' [
          self.nixosModules.mesh
          {
            services.replicator = {
              inherit roster;
              mesh = {
                enable = true;
                privateKeyFile = "/keys/wireguard";
              };
            };
          }
        ]).networking.wireguard.interfaces.wg0.peers;
    expected = [
      {
        name = "aspen";
        allowedIPs = [ "fd12::4/128" ];
        endpoint = null;
        persistentKeepalive = 25;
      }
      {
        name = "birch";
        allowedIPs = [ "fd12::2/128" ];
        endpoint = "birch.example.org:51820";
        persistentKeepalive = 25;
      }
      {
        name = "rowan";
        allowedIPs = [ "fd12::3/128" ];
        endpoint = null;
        persistentKeepalive = 25;
      }
    ];
  };

  # --- helpers
  testAMaintainerAndADrillHostAreMachinesOfTheirOwn = {
    expr =
      let
        config = system' [ helpers ];
      in
      [
        (failed config)
        (service config "replicator-prune").serviceConfig.User
        (secretsOf config)
      ];
    expected = [
      [ ]
      "replicator-maintainer"
      [
        "replicator-passphrase:/run/secrets/passphrase"
        "replicator-passphrase:/run/secrets/passphrase"
      ]
    ];
  };

  testHostedTenantsHaveAHomeEachAndOneUnit = {
    expr =
      let
        made = system' [ hosting ];
        unit = (service made "replicator-run-all").serviceConfig;
        rules = made.systemd.tmpfiles.settings."10-replicator-hosting";
      in
      {
        failed = failed made;
        inherit (unit) User AmbientCapabilities;
        runs = lib.hasSuffix "run --all --at-a-time 3 --up 10M" unit.ExecStart;
        homes = builtins.attrNames rules;
        file = rules."/var/lib/replicator-homes/anna/config.toml"."L+".argument;
        paths =
          (builtins.fromTOML (text made.environment.etc."replicator/tenants/anna.toml".source))
          .dataset.files.paths;
        secrets = secretsOf made;
      };
    expected = {
      failed = [ ];
      User = "replicator-hosting";
      AmbientCapabilities = [ "CAP_DAC_READ_SEARCH" ];
      runs = true;
      homes = [
        "/var/lib/replicator-homes"
        "/var/lib/replicator-homes/anna"
        "/var/lib/replicator-homes/anna/config.toml"
        "/var/lib/replicator-homes/bo"
      ];
      file = "/etc/replicator/tenants/anna.toml";
      paths = [ "/srv/anna" ];
      secrets = [ ];
    };
  };

  testATenantsOwnPeopleAreToldAndNothingOfTheHosts = {
    expr =
      let
        made = system' (
          with' hosting {
            services.replicator.notify.command.run = "operator";
            services.replicator.hosting.tenants.bo = {
              notify.command.run = "bo";
              settings.line.up = "1M";
            };
          }
        );
        of = name: builtins.fromTOML (text made.environment.etc."replicator/tenants/${name}.toml".source);
      in
      {
        bo = of "bo";
        anna = builtins.attrNames (of "anna");
      };
    expected = {
      bo = {
        notify.command.run = "bo";
        line.up = "1M";
      };
      anna = [ "dataset" ];
    };
  };

  # --- refusals
  testRefusesATenantThatNoFolderIsCalled = says (with' hosting {
    services.replicator.hosting.tenants."../x" = { };
  }) "small letters, digits and - inside";
  testRefusesTenantsWithTheNodesUser = says (with' hosting {
    services.replicator.hosting.user = "replicator";
  }) "name one that no other unit runs as";
  testRefusesAMisspeltOption = refuses (
    with' node { services.replicator.node.datasets.photos.copis = 3; }
  );
  testRefusesAWrongType =
    refusesOption (with' node { services.replicator.node.datasets.photos.copies = "three"; })
      [
        "services"
        "replicator"
        "node"
        "datasets"
        "photos"
        "copies"
      ];
  testRefusesASizeThatIsNone =
    refusesOption (with' provider { services.replicator.provider.capacity = lib.mkForce "much"; })
      [
        "services"
        "replicator"
        "provider"
        "capacity"
      ];
  testRefusesAKeyInTheStore =
    refusesOption
      (with' provider {
        services.replicator.provider.identityFile = "${builtins.storeDir}/${
          lib.concatStrings (lib.genList (_: "0") 32)
        }-key";
      })
      [
        "services"
        "replicator"
        "provider"
        "identityFile"
      ];
  testRefusesAnUnknownFailureDomain =
    refusesOption (with' node { services.replicator.node.datasets.photos.spread = [ "house" ]; })
      [
        "services"
        "replicator"
        "node"
        "datasets"
        "photos"
        "spread"
      ];
  testCodingIsInTheFileInPlaceOfCopies = {
    expr =
      (builtins.fromTOML (
        text
          (system' (
            with' node {
              services.replicator.node.datasets.photos = {
                copies = lib.mkForce null;
                coding = "4+2";
              };
            }
          )).environment.etc."replicator/node.toml".source
      )).dataset.photos;
    expected =
      removeAttrs
        (builtins.fromTOML (text n.environment.etc."replicator/node.toml".source)).dataset.photos
        [ "copies" ]
      // {
        coding = "4+2";
      };
  };
  testRefusesCopiesAndCoding = says (with' node {
    services.replicator.node.datasets.photos.coding = "4+2";
  }) "has copies and coding, which are two promises: leave one of them out";
  testRefusesAMinimumAboveTheCopies = says (with' node {
    services.replicator.node.datasets.photos.minimum = lib.mkForce 4;
  }) "minimum of 4 is more than 3 copies: lower it, or raise copies";
  testRefusesAPolicyThatTheRosterCannotMeet =
    says
      (with' node {
        services.replicator = {
          inherit roster;
          node.datasets.photos.residency = [ "NO" ];
        };
      })
      "dataset photos has a minimum of 2, and the peers that may hold it are of 1 owners: add peers, or lower minimum or spread";
  testRefusesAMinimumOfShardsThatTheRosterCannotMeet =
    says
      (with' node {
        services.replicator = {
          inherit roster;
          node.datasets.photos = {
            copies = lib.mkForce null;
            coding = "3+2";
          };
        };
      })
      "dataset photos has a minimum of 2, which is 4 shards, and the peers that may hold it are of 2 owners";
  testWarnsOfShardsThatTheRosterCannotMeet = {
    expr =
      lib.any
        (lib.hasInfix "dataset photos has a promise of 2+1, which is 3 shards, and the peers that may hold it are of 2 owners")
        (system' (
          with' node {
            services.replicator = {
              inherit roster;
              node.datasets.photos = {
                copies = lib.mkForce null;
                minimum = lib.mkForce null;
                coding = "2+1";
              };
            };
          }
        )).warnings;
    expected = true;
  };
  testWarnsOfAPromiseThatTheRosterCannotMeet = {
    expr = lib.any (lib.hasInfix "dataset photos has a promise of 3, and the peers that may hold it are of 2 owners") inRoster.warnings;
    expected = true;
  };
  testRefusesNothingToBackUp = says [
    self.nixosModules.node
    { services.replicator.node.enable = true; }
  ] "has nothing to back up: set services.replicator.node.datasets";
  testRefusesADatasetWithoutPaths = says (with' node {
    services.replicator.node.datasets.empty = { };
  }) "datasets.empty.paths is empty: name what is to be backed up";
  testRefusesANameThatCannotBe = says (with' node {
    services.replicator.node.datasets."a:b".paths = [ "/srv" ];
  }) "cannot be a dataset's name";
  testRefusesRootAsANode = says (with' node {
    services.replicator.node.user = "root";
  }) "a node reads by a capability";
  testRefusesASnapshotByTheNode = says (with' node {
    services.replicator.node.datasets.photos.snapshot = "btrfs";
  }) "let services.replicator.state.photos.snapshot make it, in a unit of its own";
  testRefusesAHostThatTheRosterDoesNotHave = says (with' node {
    networking.hostName = "nova";
    services.replicator = { inherit roster; };
  }) "the roster has no such host: add [host.nova], as `replicator host new nova` prints it";
  testRefusesACaptureByTheNodesUser = says (with' stated {
    services.replicator.state.shop.user = lib.mkForce "replicator";
  }) "a capture runs as the user whose data it is";
  testRefusesSqliteAsRoot = says (with' node {
    services.replicator.state.app.sqlite."app.db" = "/var/lib/app/app.db";
  }) "name the owner of the SQLite files";
  testRefusesTwoUsersDatabasesInOneState =
    says
      (with' node {
        services.replicator.state.both = {
          postgresql = [ "shop" ];
          mysql = [ "wiki" ];
        };
      })
      "captures postgresql and mysql, which let in users of their own: make a state of each, and give both the same dataset";
  testRefusesNextcloudsDatabaseOnAnotherHost =
    says
      (with' node {
        services.nextcloud.config = {
          dbtype = "pgsql";
          dbhost = "db.example.org";
        };
        services.replicator.state.cloud.nextcloud.enable = true;
      })
      "services.nextcloud.config.dbhost is db.example.org: leave nextcloud.enable out, and write a capture that reaches it";
  testRefusesAStateThatKeepsNothing = says (with' node {
    services.replicator.state.empty = { };
  }) "keeps nothing: name folders, or what is to be captured";
  testRefusesAProviderThatSaysNotWhereItIs = says [
    self.nixosModules.provider
    {
      services.replicator.provider = {
        enable = true;
        capacity = "1T";
      };
    }
  ] "services.replicator.provider.site is not set: say in which house it stands";
  testRefusesAnOfferAboveTheDisk = says (with' provider {
    services.replicator.provider.diskSize = "400G";
  }) "capacity of 500G is more than the disk of 400G: offer less, or correct diskSize";
  testRefusesQuotasAboveTheOffer = says (with' provider {
    services.replicator.provider.tenants.bjorkby = {
      inherit root;
      quota = "600G";
    };
  }) "their quotas together are more than the capacity of 500G: lower a quota, or offer more";
  testRefusesMoreForEachMemberThanIsOffered = says (with' provider {
    services.replicator.provider.forMembers = "600G";
  }) "forMembers of 600G is more than the capacity of 500G: lower it, or offer more";
  testRefusesAShortLock = says (with' provider {
    services.replicator.provider.lock = "1d";
  }) "a lock of 1d and a grace of 14d are less than tenants expect";
  testRefusesAnIdentityWithoutItsKey = says (with' provider {
    services.replicator.provider.identity = identity "b";
  }) "bring the key birch.identity that `replicator host new birch` wrote";
  testRefusesAHomeAmongTheObjects = says (with' provider {
    services.replicator.provider.stateDir = "/var/lib/replicator-objects/home";
  }) "stateDir lies in dataDir, which holds objects and nothing else";
  testRefusesObjectsBesideTheDisk = says (with' provider {
    services.replicator.provider = {
      mountPoint = "/srv/disk";
      dataDir = "/srv/objects";
    };
  }) "dataDir is not on /srv/disk";
  testRefusesAMeshWithoutAKey = says [
    self.nixosModules.mesh
    {
      services.replicator = {
        inherit roster;
        mesh.enable = true;
      };
    }
  ] "bring the key shop.wireguard";
  testRefusesADiskByANameThatChanges = says (with' host {
    services.replicator.host.disk.devices = lib.mkForce [ "/dev/sda" ];
  }) "name them below /dev/disk/by-id; a name like /dev/sda may be another disk at the next boot";
  testRefusesOneDiskForTwo = says (with' host {
    services.replicator.host.disk.layout = "provider-raid1-xfs";
  }) "has 1 devices, and provider-raid1-xfs takes two";
  testRefusesAnOfferAboveTheHostsDisk = says (with' host {
    services.replicator.host.disk.size = lib.mkForce "3T";
  }) "capacity of 4T is more than the disk of 3T";
  testRefusesAKernelLimitBelowTheOffer = says (with' host {
    services.replicator.host.disk.projectQuota = "4T";
  }) "leaves no room beside the capacity of 4T";
  testRefusesAHostWithoutARoster = says (with' host {
    services.replicator.roster = lib.mkForce null;
  }) "services.replicator.host needs services.replicator.roster";
  testRefusesAKernelLimitOnBtrfs = says (with' host {
    services.replicator.host.disk = {
      layout = "provider-btrfs";
      projectQuota = "5T";
    };
  }) "projectQuota is for XFS: leave it out, or choose another layout";
  testRefusesAMeshWithoutARoster = says [
    self.nixosModules.mesh
    {
      services.replicator.mesh = {
        enable = true;
        privateKeyFile = "/keys/wireguard";
      };
    }
  ] "services.replicator.mesh needs services.replicator.roster";
  testRefusesAMeshWhoseStanzaHasNoKey = says [
    self.nixosModules.mesh
    {
      services.replicator = {
        roster = lib.recursiveUpdate roster { host.shop.wireguard = null; };
        mesh = {
          enable = true;
          privateKeyFile = "/keys/wireguard";
        };
      };
    }
  ] "host.shop needs wireguard and address to be in the mesh";
  testRefusesRootAsAProvider = says (with' provider {
    services.replicator.provider.user = "root";
  }) "a daemon that strangers talk to has a user of its own";
  testRefusesADrillHostWithoutAPassphrase = says (with' helpers {
    services.replicator.drillHost.passphraseFile = lib.mkForce null;
  }) "restore keys are wrapped by a passphrase; bring it by sops or agenix";
  testRefusesAStateThatNoUnitIsCalled = says (with' stated {
    services.replicator.state."a b".folders = [ "/srv" ];
  }) "cannot be a state's name: letters, digits, - and _";
  testRefusesHalfASnapshot = says (with' stated {
    services.replicator.state.home.snapshot.subvolume = "/srv/storage";
  }) "snapshot needs subvolume and at, both or neither";
  testRefusesASnapshotByAnotherThanRoot = says (with' stated {
    services.replicator.state.home = {
      user = "shop";
      snapshot = {
        subvolume = "/srv/storage";
        at = "/srv/storage/.replicator";
      };
    };
  }) "snapshot is made by root: leave user as it is";
  testRefusesAUnitThatNoDatasetIsCalled = says (with' node {
    services.replicator.node.datasets."a b" = {
      paths = [ "/srv" ];
      onCalendar = "hourly";
    };
  }) "makes a unit of that name: use letters, digits, - and _ only";
  testRefusesToWriteInTheStore = says (with' node {
    services.replicator.node.spool = "${builtins.storeDir}/spool";
  }) "are written to, and the Nix store is not: name folders elsewhere";
  testRefusesAMisspeltStateOfAService = refuses (
    with' stated { services.replicator.state.shop.postgres = [ "shop" ]; }
  );
  testRefusesADrillHostOnANode = says [
    self.nixosModules.default
    node
    {
      services.replicator.drillHost = {
        enable = true;
        passphraseFile = "/run/secrets/passphrase";
      };
    }
  ] "whoever takes the node could read every snapshot";
  testRefusesAMaintainerOnANode = says [
    self.nixosModules.default
    node
    { services.replicator.maintainer.enable = true; }
  ] "whoever takes the node could mark what is stored";
}
