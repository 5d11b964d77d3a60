# Providers that are reached through the mesh alone: one with an address of its own, one behind a router.
{ self, ... }@test:
let
  common = import ./common.nix test;
  addresses = {
    nova = "fd12::3";
    shop = "fd12::9";
    vega = "fd12::5";
  };
  roster = common.roster {
    machines = [
      "nova"
      "shop"
      "vega"
    ];
    providers = [
      "nova"
      "vega"
    ];
    others = [ "shop" ];
    inherit addresses;
    endpoints = {
      nova = "192.168.1.1:51820";
      shop = "192.168.1.2:51820";
    };
  };
  meshed = name: module: {
    imports = [
      module
      self.nixosModules.mesh
      (common.keyFile "wireguard" common.keys.${name}.wireguardSecret)
    ];
    services.replicator.mesh = {
      enable = true;
      privateKeyFile = "/etc/keys/wireguard";
    };
  };
in
{
  name = "mesh";
  nodes = {
    nova = meshed "nova" (common.provider roster "nova" { openFirewallOn = [ "wg0" ]; });
    vega = meshed "vega" (common.provider roster "vega" { openFirewallOn = [ "wg0" ]; });
    shop = {
      imports = [
        common.keeper
        (meshed "shop" (
          common.node roster {
            photos = {
              paths = [ "/srv/photos" ];
              copies = 2;
              minimum = 2;
            };
          }
        ))
      ];
    };
  };

  testScript =
    { nodes, ... }:
    common.words nodes
    + ''
      start_all()
      with subtest("hosts of the roster reach each other by the keys that are in it"):
          shop.wait_until_succeeds("bash -c '</dev/tcp/fd12::3/7144'")
          for machine in (nova, vega):
              machine.wait_for_unit("replicator-provider.service")
          shop.wait_until_succeeds("bash -c '</dev/tcp/fd12::5/7144'")
      with subtest("outside of the mesh nobody listens"):
          shop.fail("timeout 3 bash -c '</dev/tcp/192.168.1.1/7144'")
      with subtest("a night goes through it"):
          shop.succeed("mkdir /srv/photos; head -c 200000 /dev/urandom > /srv/photos/goose.jpg")
          settle(shop, shop, [nova, vega])
          shop.succeed("systemctl start replicator-backup")
          assert status(shop)["datasets"][0]["copies"] == 2
          shop.succeed(f"{KEEPER} restore latest:photos --target /root/back; cmp /root/back/photos/goose.jpg /srv/photos/goose.jpg")
    '';
}
