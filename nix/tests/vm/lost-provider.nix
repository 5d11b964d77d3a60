# A house burns down: one silent night changes nothing; when its people say so, its copies are made again elsewhere, and
# everything comes back from what is left.
test:
let
  common = import ./common.nix test;
  roster = common.roster {
    machines = [
      "keeper"
      "lyra"
      "nova"
      "shop"
      "vega"
    ];
    providers = [
      "lyra"
      "nova"
      "vega"
    ];
    others = [ "shop" ];
  };
in
{
  name = "lost-provider";
  nodes = {
    inherit (common) keeper;
    lyra = common.provider roster "lyra" { };
    nova = common.provider roster "nova" { };
    vega = common.provider roster "vega" { };
    shop = common.node roster {
      photos = {
        paths = [ "/srv/photos" ];
        copies = 2;
        minimum = 1;
        spread = [
          "owner"
          "region"
        ];
      };
    };
  };

  testScript =
    { nodes, ... }:
    common.words nodes
    + ''
      start_all()
      shop.succeed("mkdir /srv/photos; head -c 2000000 /dev/urandom > /srv/photos/goose.jpg")
      houses = {"lyra": lyra, "nova": nova, "vega": vega}
      settle(keeper, shop, list(houses.values()))
      shop.succeed("systemctl start replicator-backup")
      assert status(shop)["datasets"][0]["copies"] == 2


      def packs(house):
          """Bytes of objects that are more than records."""
          found = house.succeed("find /var/lib/replicator-objects -path '*/objects/*' -size +512k -printf '%s '")
          return sum(map(int, found.split()))


      def sizes():
          return {name: packs(house) for name, house in houses.items()}


      held = sizes()
      lost = max(held, key=lambda name: held[name])
      with subtest("a house that is silent for a night is not given up: its copies count, and who looks is told"):
          houses[lost].block()
          shop.succeed("systemctl start replicator-repair")
          said = json.loads(shop.succeed(f"{NODE} status --json || true"))
          assert [one["name"] for one in said["peers"] if not one["reachable"]] == [lost], said["peers"]
          assert sizes() == held, (held, sizes())
      with subtest("the operator says that it is lost: its copies are made in a third house, and none is owed"):
          made = json.loads(shop.succeed(f"{NODE} repair --json"))
          assert (made["lost_peers"], made["debts"]) == ([lost], []), made
          assert made["made"] > 0 and sum(sizes().values()) > sum(held.values()), (held, sizes(), made)
      with subtest("a night without it still publishes, and everything comes back"):
          shop.succeed("echo more > /srv/photos/more; systemctl start replicator-backup")
          keeper.succeed(f"{KEEPER} restore latest:photos --target /root/back || test $? = 3")
          sums = "sha256sum photos/goose.jpg photos/more"
          assert shop.succeed(f"cd /srv; {sums}") == keeper.succeed(f"cd /root/back; {sums}")
    '';
}
