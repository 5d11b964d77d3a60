# A tenant that stores more than it was given: refused in good order, nothing lost, and done when there is more room.
test:
let
  common = import ./common.nix test;
  roster = common.roster {
    machines = [
      "keeper"
      "nova"
      "shop"
    ];
    providers = [ "nova" ];
    others = [ "shop" ];
    quota = "3M";
    capacity = "60M";
  };
in
{
  name = "quota";
  nodes = {
    inherit (common) keeper;
    nova = common.provider roster "nova" { };
    shop = common.node roster {
      films = {
        paths = [ "/srv/films" ];
        copies = 1;
        minimum = 1;
      };
    };
  };

  testScript =
    { nodes, ... }:
    common.words nodes
    + ''
      start_all()
      shop.succeed("mkdir /srv/films; head -c 6000000 /dev/urandom > /srv/films/geese.mkv")
      settle(keeper, shop, [nova])
      with subtest("what does not fit is not published, waits in the spool, and is an alarm"):
          shop.fail("systemctl start replicator-backup")
          code = shop.succeed("systemctl show -P ExecMainStatus replicator-backup").strip()
          assert code == "5", code
          assert status(shop)["spooled_bytes"] > 0
          used = int(nova.succeed("du -sb /var/lib/replicator-objects | cut -f1"))
          assert used < 3_200_000, used
      with subtest("the provider still answers, and takes what is small"):
          nova.succeed("systemctl is-active replicator-provider")
      with subtest("with a larger quota the next night sends what waited, without reading it again"):
          nova.succeed(
              "sed -i 's/^quota = .*/quota = \"40M\"/' /run/provider.toml; systemctl restart replicator-provider"
          )
          nova.wait_for_unit("replicator-provider.service")
          shop.succeed("systemctl start replicator-backup")
          assert status(shop)["spooled_bytes"] == 0
          keeper.succeed(f"{KEEPER} restore latest:films --target /root/back")
          sums = "sha256sum films/geese.mkv | cut -c1-64"
          assert shop.succeed(f"cd /srv; {sums}") == keeper.succeed(f"cd /root/back; {sums}")
    '';
}
