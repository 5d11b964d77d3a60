# A machine of a tenant's friend that helps: it marks what no snapshot needs, restores for trial, and tells when a trial fails.
{ lib, self, ... }@test:
let
  common = import ./common.nix test;
  roster = common.roster {
    machines = [
      "helper"
      "nova"
      "shop"
    ];
    providers = [ "nova" ];
    others = [
      "helper"
      "shop"
    ];
  };
in
{
  name = "helpers";
  nodes = {
    nova = common.provider roster "nova" { };
    shop = {
      imports = [
        common.keeper
        (common.node roster {
          letters = {
            paths = [ "/srv/letters" ];
            copies = 1;
            minimum = 1;
          };
        })
      ];
    };
    helper = {
      imports = [
        self.nixosModules.helpers
        (common.keyFile "passphrase" "another-horse-5521-staple")
      ];
      services.replicator = {
        inherit roster;
        notify.command.run = "cat >> $HOME/told";
        maintainer = {
          enable = true;
          metricsFile = "/var/lib/metrics/maintainer.prom";
        };
        drillHost = {
          enable = true;
          passphraseFile = "/etc/keys/passphrase";
        };
      };
      systemd.tmpfiles.settings.metrics."/var/lib/metrics".d = {
        mode = "0755";
        user = "replicator-maintainer";
        group = "replicator-maintainer";
      };
    };
  };

  testScript =
    { nodes, ... }:
    common.words nodes
    + ''
      start_all()
      shop.succeed("mkdir /srv/letters; head -c 200000 /dev/urandom > /srv/letters/one")
      settle(shop, shop, [nova])
      shop.succeed("systemctl start replicator-backup")


      def let_help(role):
          """As if the keeper's answer had come with the next configuration."""
          helper.wait_until_succeeds(f"test -s /var/lib/replicator-{role}/request")
          request = helper.succeed(f"head -n 1 /var/lib/replicator-{role}/request").strip()
          answer = json.loads(shop.succeed(f"{KEEPER} node add --json {request}"))["code"]
          helper.succeed(
              f"mkdir -p /run/keys /run/systemd/system/replicator-{role}-join.service.d; echo {answer} > /run/keys/{role}",
              f"printf '[Service]\\nLoadCredential=replicator-grant:/run/keys/{role}\\n'"
              f" > /run/systemd/system/replicator-{role}-join.service.d/grant.conf",
              f"systemctl daemon-reload; systemctl restart replicator-{role}-join",
          )


      def said(machine, user, words):
          """What a command answers in the home of a user of this machine."""
          return json.loads(machine.succeed(
              f"runuser -u replicator-{user} -- env REPLICATOR_HOME=/var/lib/replicator-{user} ${lib.getExe nodes.helper.services.replicator.package} {words} --json"
          ))


      with subtest("both ask, and the keeper's answers make a maintainer and a drill host of them, without a person there"):
          for role in ("maintainer", "drill"):
              let_help(role)
              helper.succeed(f"test $(stat -c %U /var/lib/replicator-{role}/{role}/home.json) = replicator-{role}")
      with subtest("what no snapshot needs is marked, and Prometheus reads how that went"):
          shop.succeed("head -c 200000 /dev/urandom > /srv/letters/one; systemctl start replicator-backup")
          old = json.loads(shop.succeed(f"{KEEPER} snapshots letters --json"))
          shop.succeed(f"{KEEPER} forget {min(old, key=lambda one: one['time'])['id']}")
          # It says what is gone, the node lets go of that, then it is marked.
          helper.succeed("systemctl start replicator-prune")
          shop.succeed("systemctl start replicator-backup")
          helper.succeed("systemctl start replicator-prune")
          helper.succeed("grep '^replicator_run_exit{run=\"prune\"} 0' /var/lib/metrics/maintainer.prom")
          kept = said(nova, "provider", "provider status")
          assert sum(one["marked_bytes"] for one in kept["deletions"]) > 0, kept
      with subtest("the newest snapshot is restored for trial, and nothing of it stays"):
          helper.succeed("systemctl start replicator-drill; test -z \"$(ls -A /var/lib/replicator-drill/scratch)\"")
          assert [(one["dataset"], one["whole"], one["passed"]) for one in said(helper, "drill", "drill --list")] == [("letters", True, True)]
      with subtest("a trial that fails is told, once"):
          helper.succeed("rm -f /var/lib/replicator-drill/told")
          nova.succeed("systemctl stop replicator-provider")
          helper.fail("systemctl start replicator-drill")
          helper.succeed("grep -i drill /var/lib/replicator-drill/told; cp /var/lib/replicator-drill/told /run/told")
          helper.succeed("systemctl start replicator-drill-notify; cmp /run/told /var/lib/replicator-drill/told")
    '';
}
