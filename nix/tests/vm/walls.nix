# Every unit that the modules can make, on one machine: what systemd says of the walls around each.
{
  lib,
  self,
  pkgs,
  ...
}@test:
let
  common = import ./common.nix test;
  roster = common.roster {
    machines = [ "nova" ];
    providers = [ "nova" ];
  };
  known = {
    isSystemUser = true;
    group = "users";
  };
in
{
  name = "walls";
  nodes.nova = {
    imports = [
      self.nixosModules.default
      self.nixosModules.host
    ]
    ++ lib.optional (!pkgs ? sqlite) (common.complete pkgs);
    users.users = lib.genAttrs [ "postgres" "mysql" "app" "nextcloud" ] (_: known);
    users.groups.users = { };
    services.replicator = {
      inherit roster;
      mesh.enable = false;
      host = {
        enable = true;
        mesh = false;
        identityFile = "/keys/identity";
        disk = {
          devices = [ "/dev/disk/by-id/ata-NOVA" ];
          projectQuota = "60M";
          luksKeyFile = "/keys/luks";
        };
      };
      provider.metricsFile = "/var/lib/metrics/provider.prom";
      provider.metricsListen = "127.0.0.1:9144";
      provider.notice = "60d";
      provider.forMembers = "1M";
      provider.relayFor = [ "members" ];
      provider.relayRate = "2M";
      notify.command.run = "true";
      node = {
        enable = true;
        window.end = "07:00";
        metricsFile = "/var/lib/metrics/node.prom";
        datasets.files = {
          paths = [ "/srv/files" ];
          onCalendar = "hourly";
        };
      };
      state = {
        shop.postgresql = [ "shop" ];
        wiki.mysql = [ "wiki" ];
        app = {
          user = "app";
          sqlite."app.db" = "/var/lib/app/app.db";
        };
        cloud.nextcloud.enable = true;
        home.snapshot = {
          subvolume = "/srv/storage";
          at = "/srv/storage/.replicator";
        };
      };
      hosting = {
        enable = true;
        tenants.anna = {
          datasets.files.paths = [ "/srv/anna" ];
          notify.command.run = "true";
          settings.line.up = "1M";
        };
      };
      maintainer = {
        enable = true;
        besideNode = true;
      };
      drillHost = {
        enable = true;
        besideNode = true;
        passphraseFile = "/etc/keeper/passphrase";
      };
    };
    # Nothing of it is there to be released or served.
    systemd.services =
      lib.genAttrs
        [
          "replicator-provider"
          "replicator-release-cloud"
          "replicator-release-home"
        ]
        (_: {
          wantedBy = lib.mkForce [ ];
        });
    # There is no such disk to wait for at boot.
    environment.etc.crypttab.target = "crypttab.shown";
    environment.etc."keeper/passphrase" = {
      text = "correct-horse-9871-battery";
      mode = "0400";
    };
  };

  testScript =
    { nodes, ... }:
    ''
      start_all()
      with subtest("no unit's exposure is above 2.0"):
          units = nova.succeed("cd /etc/systemd/system; ls -d replicator*.service").split()
          assert len(units) >= 22, units
          for unit in units:
              nova.succeed(f"systemd-analyze security --threshold=20 --no-pager {unit} > /run/said || (tail -n 1 /run/said >&2; false)")
      with subtest("no unit of the node takes a passphrase"):
          for unit in ("backup", "repair", "verify", "health", "join", "backup-files"):
              nova.fail(f"grep -qi passphrase /etc/systemd/system/replicator-{unit}.service")
      with subtest("systemd makes of the layout's line a unit that opens the disk with the key, without which the host boots all the same"):
          nova.succeed("cp /etc/crypttab.shown /etc/crypttab; mkdir /run/made")
          nova.succeed("$(find -L /usr/lib/systemd /run/current-system/systemd -name systemd-cryptsetup-generator 2>/dev/null | head -n 1) /run/made /run/made /run/made")
          unit = nova.succeed("cat '/run/made/systemd-cryptsetup@replicator\\x2dreplicator.service'")
          assert "attach 'replicator-replicator' '/dev/disk/by-partlabel/disk-replicator-objects' '/keys/luks'" in unit, unit
          nova.succeed("rm /etc/crypttab; test -e /run/made/cryptsetup.target.wants -a ! -e /run/made/cryptsetup.target.requires")
      with subtest("only units that read everybody's files may"):
          said = nova.succeed("cd /etc/systemd/system; grep -l AmbientCapabilities replicator*.service").split()
          assert said == ["replicator-backup-files.service", "replicator-backup.service", "replicator-repair.service", "replicator-run-all.service"], said
      with subtest("systemd finds no fault in any unit"):
          nova.succeed("cd /etc/systemd/system; systemd-analyze verify --man=no --recursive-errors=no replicator*.timer replicator*.path")
      with subtest("the program takes every file that was made for it"):
          for name in ("node", "provider", "maintainer", "drill"):
              nova.succeed(f"replicator check-config /etc/replicator/{name}.toml")
      with subtest("a hosted tenant has a home with what it backs up, and a request for its keeper"):
          nova.succeed("replicator check-config /var/lib/replicator-homes/anna/config.toml")
          nova.succeed("${lib.getExe nodes.nova.services.replicator.hosting.command} anna node request --name anna-hosted | grep '^rpl-request'")
          nova.succeed("test $(stat -c %U /var/lib/replicator-homes/anna) = replicator-hosting")
      with subtest("requests of a maintainer and a drill host are made by themselves"):
          nova.wait_until_succeeds("grep -q '^rpl-request' /var/lib/replicator-maintainer/request")
          nova.wait_until_succeeds("grep -q '^rpl-request' /var/lib/replicator-drill/request")
    '';
}
