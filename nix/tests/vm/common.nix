# What the stories share: hosts of one roster with keys that everybody may know, and a few words for their scripts.
# Machines are numbered by their names' order, as the test driver does: addresses follow from that.
{
  lib,
  self,
  system,
  ...
}:
let
  # Made for these tests from sha256("replicator vm test NAME"); they protect nothing.
  keys = {
    lyra = {
      identity = "xtvaufhev6gfuion6p7qk6tbhohqkjfhvfaxszytwmnkihi5w3ra";
      secret = "49b0e8a9a735bccf04183ac91545147b540189ff6b8c5253a007e403198a2c88";
      wireguard = "k/y7bigIuEfOc6pRecnaN3EkF42M15veWYNnKhIcZxg=";
      wireguardSecret = "EPgqzfq7ILR2fEAHtS8bg8qRJXvnmBoiUHLdNJwE1XI=";
      site = "shed";
      region = "skane";
      country = "SE";
    };
    nova = {
      identity = "mtu3473uvefpurm62x53vadyg67x6vkhf24d5pwbqwvbnjyjzpsa";
      secret = "b1fdeb825fa54b6c4a9bafee5135acc3df4778502004bad70179b3c448461aaa";
      wireguard = "D8BP7p8ZRPergwq0zHCxKqxsSvP19eJ0LFKnafFKjXg=";
      wireguardSecret = "oAA6/LbmKjCUmuwM1GoQNISAT3d4muKunuHGNkWlG30=";
      site = "cellar";
      region = "umea";
      country = "SE";
    };
    shop = {
      wireguard = "LV9WxKpdb5f8D+VHqLJVQ237qmjSsMlCjYj05gGV2g4=";
      wireguardSecret = "AFmcs81Z6FJSiKOH+BLYNFH4S2P0Iu+dJyS/zOcSY2Y=";
    };
    vega = {
      identity = "erxfzvvfoqdu37urdgwke2hslge7ydz2ojabk5plzzkoovwarjja";
      secret = "25ef45ad68470444dec9a2efffbd5912ec9f7a04356c9e79029852697b96be96";
      wireguard = "al+Asa140aQ+aOQse7BYUGFRHGFc2CFoccQsJ6DjRi4=";
      wireguardSecret = "8AlEaPEJo5NimB1LnM/3fa24x9gWJH7NHpJzUyxr9m4=";
      site = "loft";
      region = "oslo";
      country = "NO";
    };
  };
  # Not known before the keeper makes it; see `let_in`.
  anyRoot = lib.concatStrings (lib.genList (_: "00") 32);
  keyFile = name: text: {
    environment.etc."keys/${name}" = {
      inherit text;
      mode = "0400";
    };
  };
in
{
  inherit keys anyRoot;

  # The roster of providers, at the addresses they have among `machines` unless `addresses` says otherwise.
  roster =
    {
      machines,
      providers,
      quota ? "40M",
      capacity ? "50M",
      addresses ? { },
      endpoints ? { },
      others ? [ ],
    }:
    let
      sorted = lib.sort (a: b: a < b) machines;
      number = name: toString (1 + lib.length (builtins.filter (other: other < name) sorted));
      address = name: addresses.${name} or "192.168.1.${number name}";
      meshed =
        name:
        lib.optionalAttrs (addresses ? ${name}) { inherit (keys.${name}) wireguard; }
        // lib.optionalAttrs (endpoints ? ${name}) { endpoint = endpoints.${name}; };
    in
    {
      host =
        lib.genAttrs providers (
          name:
          {
            inherit (keys.${name})
              identity
              site
              region
              country
              ;
            owner = name;
            address = address name;
            inherit capacity;
          }
          // meshed name
        )
        // lib.genAttrs others (
          name:
          {
            address = address name;
            owner = "collective";
            site = "office";
          }
          // meshed name
        );
      tenant.bjorkby = {
        root = anyRoot;
        inherit quota;
      };
    };

  provider =
    roster: name:
    { ... }@more:
    {
      imports = [
        self.nixosModules.provider
        self.nixosModules.enrol
        (keyFile "identity" keys.${name}.secret)
      ];
      services.replicator = {
        inherit roster;
        provider = {
          enable = true;
          identityFile = "/etc/keys/identity";
          openFirewallOn = [ "eth1" ];
        }
        // more;
      };
    };

  node = roster: datasets: {
    imports = [ self.nixosModules.node ];
    services.replicator = {
      inherit roster;
      node = {
        enable = true;
        randomizedDelay = "0";
        inherit datasets;
      };
    };
  };

  # A key on a machine that no secrets' tool looks after; real ones never come by the store.
  inherit keyFile;

  keeper = {
    environment.systemPackages = [ self.packages.${system}.replicator ];
    environment.etc."keeper/passphrase" = {
      text = "correct-horse-9871-battery";
      mode = "0400";
    };
  };

  # A stand-in for nixpkgs may lack names of programs, which Debian has where the containers run.
  complete = pkgs: {
    _module.args.pkgs = lib.mkForce (
      pkgs
      // lib.genAttrs (builtins.filter (name: !pkgs ? ${name}) [
        "btrfs-progs"
        "mariadb"
        "postgresql"
        "sqlite"
      ]) (_: pkgs.bash)
    );
  };

  # Said before each script. NODE, TODO and PROVIDER are what an operator types as replicator-node and so on.
  words = nodes: ''
    import json

    ${lib.concatStrings (
      lib.mapAttrsToList
        (
          word: find:
          let
            found = builtins.filter (one: one != null) (map find (builtins.attrValues nodes));
          in
          lib.optionalString (found != [ ]) "${word} = \"${lib.getExe (lib.head found)}\"\n"
        )
        {
          NODE =
            config:
            if config.services.replicator.node.enable or false then
              config.services.replicator.node.command
            else
              null;
          TODO =
            config:
            if config.services.replicator.node.enable or false then
              config.services.replicator.node.todo
            else
              null;
        }
    )}

    KEEPER = "REPLICATOR_HOME=/root/keeper REPLICATOR_PASSPHRASE_FILE=/root/passphrase replicator"


    def make_keeper(machine):
        """Make the tenant; return its root key."""
        machine.succeed("install -m 600 /etc/keeper/passphrase /root/passphrase")
        made = machine.succeed(f"{KEEPER} init --name bjorkby --keeper-only --recovery-sheet /root/sheet --json")
        return json.loads(made)["root"]


    def let_in(machine, root):
        """As if the roster had had the tenant's root key when the machine was built."""
        machine.succeed(
            f"sed 's/^root = .*/root = \"{root}\"/' /etc/replicator/provider.toml > /run/provider.toml",
            "mkdir -p /run/systemd/system/replicator-provider.service.d",
            "printf '[Service]\\nEnvironment=REPLICATOR_CONFIG=/run/provider.toml\\n'"
            " > /run/systemd/system/replicator-provider.service.d/root.conf",
            "systemctl daemon-reload; systemctl restart replicator-provider",
        )


    def add_node(machine, keeper, home="/var/lib/replicator"):
        """Carry the node's request to the keeper, and its grant back, as a person would."""
        machine.wait_until_succeeds(f"test -s {home}/request")
        request = machine.succeed(f"head -n 1 {home}/request").strip()
        answer = json.loads(keeper.succeed(f"{KEEPER} node add --json {request}"))["code"]
        machine.succeed(f"{NODE} node add {answer}")


    def settle(keeper, shop, providers, home="/var/lib/replicator"):
        """Let the tenant in at providers that serve, put them into the charter, give the node its right."""
        root = make_keeper(keeper)
        for machine in providers:
            machine.wait_for_unit("replicator-provider.service")
            let_in(machine, root)
        for line in shop.succeed(f"{TODO} | grep -o 'replicator peer add .*'").splitlines():
            keeper.succeed(line.replace("replicator", KEEPER, 1))
        add_node(shop, keeper, home)


    def status(machine):
        """What the node knows without asking anybody, whatever it thinks of it."""
        return json.loads(machine.succeed(f"{NODE} status --offline --json || true"))
  '';
}
