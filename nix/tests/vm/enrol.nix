# A machine with an empty disk becomes a provider: key and disk are proved before anybody is served, and the first pack
# lies on it. (Formatting and unlocking the disk is disko's and systemd's; here it is mounted by hand.)
{ self, ... }@test:
let
  common = import ./common.nix test;
  roster = common.roster {
    machines = [
      "nova"
      "shop"
    ];
    providers = [ "nova" ];
    others = [ "shop" ];
    capacity = "60M";
  };
in
{
  name = "enrol";
  nodes = {
    nova = {
      imports = [
        self.nixosModules.enrol
        (common.keyFile "right" common.keys.nova.secret)
        (common.keyFile "wrong" common.keys.vega.secret)
      ];
      services.replicator = {
        inherit roster;
        provider = {
          enable = true;
          identityFile = "/keys/identity";
          mountPoint = "/srv/replicator";
          stateDir = "/srv/replicator/home";
        };
      };
    };
    shop = {
      imports = [
        common.keeper
        (common.node roster {
          photos = {
            paths = [ "/srv/photos" ];
            copies = 1;
            minimum = 1;
          };
        })
      ];
    };
  };

  testScript =
    { nodes, ... }:
    common.words nodes
    + ''
      start_all()
      start = "systemctl reset-failed; systemctl start replicator-provider"
      with subtest("without its disk nothing starts, and nothing is written below the empty mount point"):
          nova.fail(start)
          nova.fail("test -e /srv/replicator/objects")
      nova.succeed("mkdir -p /srv/replicator; mount -t tmpfs -o size=40M none /srv/replicator")
      with subtest("without its key nothing starts"):
          nova.fail(start)
      with subtest("with another host's key it says whose is expected"):
          nova.succeed("install -D -m 400 /etc/keys/wrong /keys/identity")
          nova.fail(start)
          nova.succeed("journalctl -u replicator-enrol | grep 'was expected'")
          nova.fail("test -e /srv/replicator/home/provider/home.json")
      with subtest("a disk that is too small for what is offered is refused"):
          nova.succeed("install -m 400 /etc/keys/right /keys/identity")
          nova.fail(start)
          nova.succeed("journalctl -u replicator-enrol | grep 'lower provider.capacity'")
      with subtest("with key and disk it serves, and what it showed is kept"):
          nova.succeed("mount -o remount,size=120M /srv/replicator", start)
          nova.wait_for_unit("replicator-provider.service")
          proof = json.loads(nova.succeed("cat /srv/replicator/home/enrolled.json"))
          assert proof["capacity"] == 60_000_000, proof
          nova.succeed("test $(stat -c %U:%a /srv/replicator/home /srv/replicator/objects | sort -u) = replicator-provider:700")
      with subtest("a node of the roster sends its first pack"):
          shop.succeed("mkdir /srv/photos; head -c 200000 /dev/urandom > /srv/photos/goose.jpg")
          settle(shop, shop, [nova])
          shop.succeed("systemctl start replicator-backup")
          nova.succeed("ls /srv/replicator/objects/*/objects | grep -E '^[0-9a-f]{64}$'")
      with subtest("after a restart it serves at once: the proof is asked for once"):
          nova.succeed("systemctl restart replicator-enrol replicator-provider")
          nova.wait_for_unit("replicator-provider.service")
          shop.succeed("echo more > /srv/photos/more; systemctl start replicator-backup")
    '';
}
