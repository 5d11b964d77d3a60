# Two hosts of an organisation as kompis-os describes it: one runs an app, one is an archive. (Their addresses are those of
# the test's network instead of a VPN's; sops is a folder.)
{ lib, self, ... }@test:
let
  common = import ./common.nix test;
  org = {
    name = "Almby";
    prefix = "fd21:4365:8709";
    vpn.eth1 = {
      id = 0;
      interface = "eth1";
    };
    role.archive.services = [ "backup" ];
    role.peer.services = [ ];
    service.backup.settings.tenant.bjorkby = {
      root = common.anyRoot;
      quota = "40M";
    };
    host = lib.mapAttrs (name: host: host // { inherit name; }) {
      ash = {
        id = 1;
        roles = [
          "peer"
          "archive"
        ];
        vpns = [ "eth1" ];
        network.eth1.address = "192.168.1.1";
        publicKeys.replica-key = ../../kompis-os/example/public-keys/host-ash-replica-key.pub;
        disk-layouts.packs = {
          layout = "single-xfs";
          devices = "/dev/disk/by-id/ata-ASH";
          mountpoint = "/srv/replicator";
        };
        settings.replicator = {
          owner = "mio";
          site = "mio-home";
          region = "narke";
          country = "SE";
          capacity = "60M";
        };
      };
      elm = {
        id = 2;
        roles = [ "peer" ];
        vpns = [ "eth1" ];
        network.eth1.address = "192.168.1.2";
        settings.replicator = {
          owner = "collective";
          site = "hall";
          storage = "/srv/storage";
        };
      };
    };
    app.wiki = {
      id = 5;
      run-on-hosts = [ "elm" ];
      state = {
        commit = "daily";
        send."host:archive" = "daily";
        keep."host:archive".daily = 14;
        copies = 1;
        minimum = 1;
        residency = "EEA";
      };
    };
  };
  host = name: {
    imports = map (role: self.nixosModules."kompis-os-${role}") org.host.${name}.roles;
    _module.args = {
      inherit org;
      host = org.host.${name};
    };
    networking.hostName = name;
  };
in
{
  name = "kompis-os-host";
  nodes = {
    ash = {
      imports = [
        (host "ash")
        # The example's keys are made from their names; they protect nothing.
        (common.keyFile "replica-key" (builtins.hashString "sha256" "replicator example ash"))
      ];
      sops.secrets.replica-key.path = "/etc/keys/replica-key";
      # As principals.nix of kompis-os makes it.
      users.users.backup = {
        uid = 2040;
        isSystemUser = true;
        group = "backup";
      };
      users.groups.backup.gid = 2040;
      # Starts when the disk is there; kompis-os mounts it by its layout.
      systemd.services.replicator-provider.wantedBy = lib.mkForce [ ];
    };
    elm = {
      imports = [
        common.keeper
        (host "elm")
      ];
      services.replicator.node.randomizedDelay = "0";
      services.replicator.state.wiki = {
        user = "wiki";
        capture = "cp /var/lib/wiki/pages dump.new && mv dump.new dump";
      };
      users.users.wiki = {
        isSystemUser = true;
        group = "wiki";
      };
      users.groups.wiki = { };
    };
  };

  testScript =
    { nodes, ... }:
    common.words nodes
    + ''
      start_all()
      ash.succeed("mkdir -p /srv/replicator; mount -t tmpfs -o size=120M none /srv/replicator")
      ash.succeed("systemctl start replicator-provider")
      with subtest("the archive runs as kompis-os' own user, with home and objects on its disk"):
          ash.succeed("test $(stat -c %U:%a /srv/replicator/home /srv/replicator/objects | sort -u) = backup:700")
          ash.wait_for_open_port(7144, addr="192.168.1.1")
      with subtest("the app's state is a dataset, and what only the keeper can do is said"):
          todo = elm.succeed(f"{TODO}")
          assert "replicator dataset set wiki --keep-daily 14" in todo, todo
      with subtest("a night"):
          elm.succeed("install -d -o wiki -g wiki -m 700 /var/lib/wiki; echo geese > /var/lib/wiki/pages; chown wiki /var/lib/wiki/pages")
          settle(elm, elm, [ash], home="/srv/storage/replicator")
          elm.succeed("systemctl start replicator-backup")
          elm.succeed("test $(stat -c %U /srv/storage/replicator-dumps/wiki-dump/dump) = wiki")
          assert status(elm)["datasets"][0]["copies"] == 1
      with subtest("nothing of it is on the small disk"):
          elm.succeed("test ! -e /var/lib/replicator; test ! -e /var/lib/replicator-dumps")
          ash.succeed("test ! -e /var/lib/replicator-provider; test ! -e /var/lib/replicator-objects")
      with subtest("and back"):
          elm.succeed(f"{KEEPER} restore latest:wiki --target /root/back; grep geese /root/back/wiki/pages")
    '';
}
