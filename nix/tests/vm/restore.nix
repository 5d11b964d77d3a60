# A server is set up anew, and the keeper's laptop is gone too: paper and one address bring everything back.
test:
let
  common = import ./common.nix test;
  roster = common.roster {
    machines = [
      "keeper"
      "nova"
      "shop"
      "vega"
    ];
    providers = [
      "nova"
      "vega"
    ];
    others = [ "shop" ];
  };
in
{
  name = "restore";
  nodes = {
    inherit (common) keeper;
    nova = common.provider roster "nova" { };
    vega = common.provider roster "vega" { };
    shop = common.node roster {
      letters = {
        paths = [ "/srv/letters" ];
        copies = 2;
        minimum = 1;
      };
    };
  };

  testScript =
    { nodes, ... }:
    common.words nodes
    + ''
      start_all()
      shop.succeed(
          "mkdir -p /srv/letters/old; echo dear friend > /srv/letters/one; head -c 500000 /dev/urandom > /srv/letters/old/photo",
          "chmod 640 /srv/letters/one; ln -s one /srv/letters/link; chown 1234:4321 /srv/letters/one",
      )
      settle(keeper, shop, [nova, vega])
      shop.succeed("systemctl start replicator-backup")
      picture = "find letters -printf '%p %m %U %G %l\\n' | sort; sha256sum letters/one letters/old/photo"
      before = shop.succeed(f"cd /srv; {picture}")
      address = keeper.succeed(f"{KEEPER} peer show nova --json | grep -o '192.168.1.[0-9]*:7144' | head -n 1").strip()
      with subtest("the server is wiped and asks anew: a new key, a new right, nobody was asked for a passphrase"):
          shop.succeed("rm -rf /srv/letters; find /var/lib/replicator -mindepth 1 -delete; systemctl restart replicator-join")
          add_node(shop, keeper)
      with subtest("the keeper is lost as well: sheet and one address make another, and all of it comes back"):
          keeper.succeed(
              "rm -rf /root/keeper",
              f"{KEEPER} recover --sheet /root/sheet --peer {address} --keeper-only",
              f"{KEEPER} restore latest:letters --target /root/back",
          )
          assert keeper.succeed(f"cd /root/back; {picture}") == before
      with subtest("the server goes on where its data is put back"):
          shop.succeed("mkdir -p /srv/letters; echo dear friend > /srv/letters/one; systemctl start replicator-backup")
          assert len(json.loads(keeper.succeed(f"{KEEPER} snapshots letters --json"))) == 2
    '';
}
