# The roles of nix/kompis-os on the example organisation, as kompis-os calls them: org and host are given to modules.
{
  lib,
  self,
  nixosSystem,
  ...
}:
let
  kompis = self.lib.kompis-os;
  raw = lib.importTOML ../kompis-os/example/org.toml;
  org = raw // {
    storePath = ../kompis-os/example;
    host = lib.mapAttrs (name: host: host // { inherit name; }) raw.host;
  };
  # Another one, which no pure evaluation sees: nix/tests/quick names it where it lies beside the tree.
  elsewhere = builtins.getEnv "REPLICATOR_ORG";
  other =
    if elsewhere == "" then
      null
    else
      let
        read = lib.importTOML (/. + elsewhere);
        keys = [
          "ash"
          "oak"
          "yew"
        ];
        archives = builtins.filter (name: builtins.elem "archive" read.host.${name}.roles) (
          builtins.attrNames read.host
        );
        keyOf = lib.listToAttrs (
          lib.imap0 (place: name: {
            inherit name;
            value = ../kompis-os/example/public-keys + "/host-${builtins.elemAt keys place}-replica-key.pub";
          }) archives
        );
      in
      read
      // {
        host = lib.mapAttrs (
          name: host:
          host
          // {
            inherit name;
          }
          // lib.optionalAttrs (keyOf ? ${name}) { publicKeys.replica-key = keyOf.${name}; }
        ) read.host;
      };
  change = path: value: lib.recursiveUpdate org (lib.setAttrByPath path value);
  configOf =
    org: name: more:
    (nixosSystem {
      system = "x86_64-linux";
      specialArgs = {
        inherit org;
        host = org.host.${name};
      };
      modules =
        map (role: self.nixosModules."kompis-os-${role}") (
          builtins.filter (role: role == "archive" || role == "peer") org.host.${name}.roles
        )
        ++ [
          # What sops-nix declares, in a machine that does not have it.
          {
            options.sops.secrets = lib.mkOption {
              type = lib.types.attrsOf (
                lib.types.submodule (
                  { name, ... }:
                  {
                    options = {
                      path = lib.mkOption {
                        type = lib.types.str;
                        default = "/run/secrets/${name}";
                        description = "Where it is.";
                      };
                      restartUnits = lib.mkOption {
                        type = lib.types.listOf lib.types.str;
                        default = [ ];
                        description = "Who reads it.";
                      };
                    };
                  }
                )
              );
              default = { };
              description = "As in sops-nix.";
            };
            config.networking.hostName = name;
          }
          more
        ];
    }).config;
  failed = config: map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
  throws = value: {
    expr = (builtins.tryEval (builtins.deepSeq value true)).success;
    expected = false;
  };
  state = changes: kompis.datasetOf (change [ "app" "wiki" "state" ] changes) "elm" "wiki";

  ash = configOf org "ash" { };
  elm = configOf org "elm" { };
  wiped = configOf org "elm" {
    o11n.preserve = {
      enable = true;
      storage = "/srv/storage";
    };
    o11n.postgresql.databases.wiki.enable = true;
  };
  # The app's database is the one that Nextcloud's own state dumps.
  clouded = configOf org "elm" {
    o11n.postgresql.databases.wiki.enable = true;
    services.replicator.state.wiki.nextcloud.enable = true;
  };
  oak = configOf org "oak" { };
  mine = lib.filterAttrs (name: _: lib.hasPrefix "replicator" name);
in
lib.runTests (
  lib.optionalAttrs (other != null) {
    # Its Nextcloud's host is an archive too, and has two others.
    testEveryHostOfAnotherOrganisationHolds = {
      expr = lib.mapAttrs (
        name: _:
        let
          config = configOf other name { o11n.postgresql.databases.cloud.enable = true; };
        in
        {
          failed = failed config;
          datasets = lib.mapAttrs (_: one: {
            inherit (one) copies minimum;
          }) config.services.replicator.node.datasets or { };
          peers = lib.optionals (config.services.replicator.node.enable or false) (
            builtins.attrNames config.services.replicator.node.peers
          );
          provides = config.services.replicator.provider.enable or false;
        }
      ) other.host;
      expected =
        let
          host = provides: {
            failed = [ ];
            datasets = { };
            peers = [ ];
            inherit provides;
          };
        in
        {
          hub = host false;
          laptop = host false;
          rowan = host true;
          aspen = host true;
          birch = host true // {
            datasets.cloud = {
              copies = 3;
              minimum = 2;
            };
            peers = [
              "aspen"
              "rowan"
            ];
          };
        };
    };
  }
  // {
    testAddressesAreKompisOss = {
      expr = kompis.addressOf org "yew";
      expected = "fd21:4365:8709:0000::0003";
    };
    testARoleSelectsItsHosts = {
      expr = map (kompis.select org) [
        "host:archive"
        "host:elm"
      ];
      expected = [
        [
          "ash"
          "oak"
          "yew"
        ]
        [ "elm" ]
      ];
    };
    testASelectorOfNobodyIsRefused = throws (kompis.select org "host:archives");
    testASelectorWithoutAKindIsRefused = throws (kompis.select org "archive");

    testAnArchiveHolds = {
      expr = failed ash;
      expected = [ ];
    };
    testAnArchiveIsWhatOrgSays = {
      expr = {
        inherit (ash.services.replicator.provider)
          capacity
          owner
          country
          dataDir
          stateDir
          user
          identityFile
          listenAddress
          openFirewallOn
          ;
        inherit (ash.services.replicator.provider.tenants.almby) quota;
        restarts = ash.sops.secrets.replica-key.restartUnits;
      };
      expected = {
        capacity = "2T";
        owner = "mio";
        country = "SE";
        dataDir = "/srv/replicator/objects";
        stateDir = "/srv/replicator/home";
        user = "backup";
        identityFile = "/run/secrets/replica-key";
        listenAddress = "fd21:4365:8709:0000::0002";
        openFirewallOn = [ "wg0" ];
        quota = "800G";
        restarts = [ "replicator-provider.service" ];
      };
    };
    testAnArchiveIsWhoItsPublicKeySays = {
      expr = ash.services.replicator.provider.identity;
      expected = lib.removeSuffix "\n" (
        builtins.readFile ../kompis-os/example/public-keys/host-ash-replica-key.pub
      );
    };
    testAnIdOfKompisOssOwnIsLeftAlone = {
      expr =
        let
          made = configOf org "ash" {
            users.users.backup = {
              isSystemUser = true;
              uid = 2040;
              group = "backup";
              home = "/var/empty";
            };
          };
        in
        [
          made.users.users.backup.uid
          (failed made)
        ];
      expected = [
        2040
        [ ]
      ];
    };
    testAPeerWithoutAppsGetsNothing = {
      expr = builtins.filter (
        name:
        name != "replicator-provider" && name != "replicator-provider-folders" && name != "replicator-enrol"
      ) (builtins.attrNames (mine oak.systemd.services));
      expected = [ ];
    };
    testAPeerHolds = {
      expr = failed elm;
      expected = [ ];
    };
    testAnAppsStateBecomesADataset = {
      expr = {
        inherit (elm.services.replicator.node.datasets.wiki)
          copies
          minimum
          spread
          residency
          onCalendar
          paths
          ;
        inherit (elm.services.replicator.node.datasets.wiki.keep) daily weekly yearly;
        peers = builtins.attrNames elm.services.replicator.node.peers;
        grant = elm.services.replicator.node.grantFile;
      };
      expected = {
        copies = 3;
        minimum = 2;
        spread = [ "owner" ];
        residency = [ "EEA" ];
        onCalendar = null;
        paths = [ "/var/lib/wiki" ];
        daily = 14;
        weekly = 8;
        yearly = null;
        peers = [
          "ash"
          "oak"
          "yew"
        ];
        grant = "/run/secrets/replica-grant";
      };
    };
    testAHostThatForgetsItsRootKeepsItsHome = {
      expr = {
        inherit (wiped.services.replicator.node) stateDir dumpDir;
        captured = wiped.systemd.services.replicator-capture-wiki.serviceConfig.User;
        often = wiped.systemd.timers.replicator-capture-wiki.timerConfig.OnCalendar;
      };
      expected = {
        stateDir = "/srv/storage/replicator";
        dumpDir = "/srv/storage/replicator-dumps";
        captured = "postgres";
        often = "hourly";
      };
    };

    testNextcloudIsNotLeftClosedBetweenTwoNights = {
      expr = {
        timer = clouded.systemd.timers ? replicator-capture-wiki;
        captured = clouded.systemd.services.replicator-capture-wiki.serviceConfig.User;
        inherit (clouded.services.replicator.node.datasets.wiki) paths;
        failed = failed clouded;
      };
      expected = {
        timer = false;
        captured = "nextcloud";
        paths = [
          "/var/lib/nextcloud"
          "/var/lib/replicator-dumps/wiki-dump"
        ];
        failed = [ ];
      };
    };

    testAnArchiveWithoutADiskIsRefused = {
      expr = failed (
        configOf (
          org
          // {
            host = org.host // {
              oak = removeAttrs org.host.oak [ "disk-layouts" ];
            };
          }
        ) "oak" { }
      );
      expected = [
        "host.oak is an archive and has no disk for it: add [host.oak.disk-layouts.packs] with layout, devices and mountpoint."
      ];
    };
    testAnArchiveWithoutAKeyIsRefused = throws (
      failed (configOf (org // { storePath = ../kompis-os; }) "oak" { })
    );
    testAnArchiveThatOffersNothingIsRefused = throws (
      kompis.rosterOf (
        org
        // {
          host = org.host // {
            oak = org.host.oak // {
              settings.replicator.owner = "eli";
            };
          };
        }
      )
    );
    testAPromiseThatArchivesCannotKeepIsRefused = {
      expr =
        lib.any
          (lib.hasInfix "dataset wiki has a minimum of 3, and the peers that may hold it are of 2 owners")
          (
            failed (
              configOf (change [ "app" "wiki" "state" ] {
                minimum = 3;
                residency = "SE";
              }) "elm" { }
            )
          );
      expected = true;
    };
    testAMisspeltKeyIsRefused = throws (state {
      comit = "daily";
    });
    testAFrequencyThatIsNoneIsRefused = throws (state {
      commit = "often";
    });
    testSendingRarerThanCommittingIsRefused = throws (state {
      send."host:archive" = "weekly";
    });
    testARuleThatIsNoneIsRefused = throws (state {
      keep."host:archive" = {
        dayly = 3;
      };
    });
    testAWeeklyStateHasATimerOfItsOwn = {
      expr =
        (state {
          commit = "weekly";
          send."host:archive" = "weekly";
        }).onCalendar;
      expected = "weekly";
    };
  }
)
