# A shop with a database, two providers, a keeper: one night, one restore, one dump that fails.
{ self, ... }@test:
let
  common = import ./common.nix test;
  machines = [
    "keeper"
    "nova"
    "shop"
    "vega"
  ];
  roster = common.roster {
    inherit machines;
    providers = [
      "nova"
      "vega"
    ];
    others = [ "shop" ];
  };
in
{
  name = "nightly";
  nodes = {
    inherit (common) keeper;
    nova = common.provider roster "nova" { };
    vega = common.provider roster "vega" { };
    shop =
      { pkgs, ... }:
      {
        imports = [ self.nixosModules.node ];
        users.users.clerk = {
          isSystemUser = true;
          group = "clerk";
        };
        users.groups.clerk = { };
        systemd.services.alarm = {
          script = "echo ringing >> /run/alarm";
        };
        services.replicator = {
          inherit roster;
          onFailure = [ "alarm.service" ];
          node = {
            enable = true;
            randomizedDelay = "0";
            datasets.photos = {
              paths = [ "/srv/photos" ];
              copies = 2;
              minimum = 2;
              exclude = [ "*.tmp" ];
              keep.daily = 14;
            };
          };
          state.shop = {
            folders = [ "/srv/shop" ];
            user = "clerk";
            packages = [ pkgs.coreutils ];
            writable = [ "/srv/shop" ];
            capture = ''
              touch /srv/shop/closed
              cp /srv/shop/orders dump.new
              mv dump.new dump
            '';
            release = "rm -f /srv/shop/closed";
          };
        };
      };
  };

  testScript =
    { nodes, ... }:
    common.words nodes
    + ''
      start_all()
      shop.succeed(
          "install -d -o clerk -g clerk /srv/shop; echo 42 geese > /srv/shop/orders; chown clerk /srv/shop/orders",
          "install -d -m 700 /srv/photos; head -c 300000 /dev/urandom > /srv/photos/goose.jpg; chmod 600 /srv/photos/goose.jpg",
          "echo no > /srv/photos/x.tmp",
      )
      root = make_keeper(keeper)
      with subtest("providers prove key and disk before they serve"):
          for machine in (nova, vega):
              machine.wait_for_unit("replicator-provider.service")
              machine.wait_for_open_port(7144, addr="192.168.1.2" if machine is nova else "192.168.1.4")
              machine.succeed("test -s /var/lib/replicator-provider/enrolled.json")
              machine.succeed("test $(stat -c %U:%a /var/lib/replicator-provider) = replicator-provider:700")
              let_in(machine, root)
              machine.wait_for_unit("replicator-provider.service")
      with subtest("the files that were built are right"):
          shop.succeed(f"{TODO} > /run/todo")
          shop.succeed("grep 'replicator dataset set photos --keep-daily 14' /run/todo")
          nova.succeed("replicator check-config /etc/replicator/provider.toml")
      with subtest("the keeper adds the providers of the roster by their addresses, without codes"):
          for line in shop.succeed("grep -o 'replicator peer add .*' /run/todo").splitlines():
              keeper.succeed(line.replace("replicator", KEEPER, 1))
      with subtest("a node without a right says what to do, and backs nothing up"):
          shop.succeed("journalctl -u replicator-join | grep 'On the keeper:  replicator node add -'")
          shop.succeed("systemctl start replicator-backup; systemctl show -P ConditionResult replicator-backup | grep no")
      add_node(shop, keeper)
      with subtest("a night: the dump is made by its own user, files of others are read, nothing else is written"):
          shop.succeed("systemctl start replicator-backup")
          shop.succeed("test $(stat -c %U /var/lib/replicator-dumps/shop-dump/dump) = clerk")
          shop.wait_until_succeeds("! test -e /srv/shop/closed")
          shop.fail("test -e /run/replicator-captured/shop")
          found = {one["name"]: one for one in status(shop)["datasets"]}
          assert {name: one["copies"] for name, one in found.items()} == {"photos": 2, "shop": 2}, found
          shop.succeed("test ! -e /run/alarm")
      with subtest("audit, repair, a sample, and the question whether all is well"):
          shop.succeed("systemctl start replicator-repair replicator-verify replicator-health")
      with subtest("a dump that fails fails its dataset, is told, and keeps no other from being saved"):
          before = json.loads(shop.succeed(f"{NODE} snapshots --json"))
          shop.succeed("chmod 000 /srv/shop/orders; chown root /srv/shop/orders; echo more > /srv/photos/more")
          shop.fail("systemctl start replicator-backup")
          after = json.loads(shop.succeed(f"{NODE} snapshots --json"))
          new = [one["dataset"] for one in after if one["id"] not in {old["id"] for old in before}]
          assert new == ["photos"], new
          shop.wait_until_succeeds("grep ringing /run/alarm")
          shop.succeed("journalctl -u replicator-backup | grep 'replicator-capture-shop.service did not succeed'")
          shop.wait_until_succeeds("! test -e /srv/shop/closed")
          shop.succeed("chown clerk /srv/shop/orders; chmod 600 /srv/shop/orders; systemctl start replicator-backup")
      with subtest("the timer is there, is caught up, and starts the same unit"):
          shop.succeed("systemctl is-active replicator-backup.timer replicator-repair.timer")
          shop.succeed("grep -q Persistent=true /etc/systemd/system/replicator-backup.timer")
      with subtest("everything comes back on the keeper"):
          keeper.succeed(
              f"{KEEPER} restore latest:photos --target /root/back",
              f"{KEEPER} restore latest:shop --target /root/back",
              "grep '42 geese' /root/back/shop/orders; cmp /root/back/shop/orders /root/back/shop-dump/dump",
          )
          sums = "sha256sum photos/goose.jpg | cut -c1-64"
          assert shop.succeed(f"cd /srv; {sums}") == keeper.succeed(f"cd /root/back; {sums}")
          keeper.fail("test -e /root/back/photos/x.tmp")
    '';
}
