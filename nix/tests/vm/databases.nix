# What services keep, by the captures that are ready for it: PostgreSQL, MariaDB, SQLite and Nextcloud's state are dumped
# each by its own user while they are in use, and what comes back is loaded into the real thing.
{
  lib,
  pkgs,
  ...
}@test:
let
  common = import ./common.nix test;
  # In containers Debian's databases stand where NixOS' would; Nextcloud's own program is in no registry there.
  container = !pkgs ? sqlite;
  roster = common.roster {
    machines = [
      "nova"
      "shop"
    ];
    providers = [ "nova" ];
    others = [ "shop" ];
  };
  occ = pkgs.writeShellScriptBin "nextcloud-occ" ''
    # What occ does to its installation: maintenance is a line of config.php, which belongs to Nextcloud's user.
    test "$(id -un)" = nextcloud && test -n "$CREDENTIALS_DIRECTORY"
    case "$*" in
      "maintenance:mode --on") echo "'maintenance' => true," ;;
      "maintenance:mode --off") echo "'maintenance' => false," ;;
      *) exit 1 ;;
    esac > /srv/cloud/config/config.php
  '';
  nextcloud = {
    services.nextcloud = {
      inherit occ;
      datadir = "/srv/cloud";
      secretFile = "/etc/keys/cloud";
      config = {
        dbtype = "pgsql";
        dbname = "cloud";
      };
    };
    services.replicator.state.cloud.nextcloud.enable = true;
    environment.etc."keys/cloud" = {
      text = "{}";
      mode = "0400";
    };
  };
in
{
  name = "databases";
  nodes = {
    nova = common.provider roster "nova" { };
    shop = {
      imports = [
        common.keeper
        (common.node roster { })
      ]
      ++ lib.optionals container [
        (common.complete pkgs)
        nextcloud
        {
          users.users = lib.genAttrs [ "postgres" "mysql" "nextcloud" ] (group: {
            isSystemUser = true;
            inherit group;
          });
          users.groups = lib.genAttrs [ "postgres" "mysql" "nextcloud" ] (_: { });
        }
      ];
      users.users.app = {
        isSystemUser = true;
        group = "app";
      };
      users.groups.app = { };
      environment.systemPackages = [ (pkgs.sqlite or pkgs.bash) ];
      services.postgresql.enable = true;
      services.mysql = {
        enable = true;
        package = pkgs.mariadb or pkgs.bash;
      };
      services.replicator.state = {
        shop.postgresql = [ "shop" ];
        wiki.mysql = [ "wiki" ];
        app = {
          user = "app";
          sqlite."app.db" = "/srv/app/app.db";
        };
      };
    };
  };

  testScript =
    { nodes, ... }:
    common.words nodes
    + ''
      CLOUD = ${if container then "True" else "False"}
      start_all()
      shop.succeed("systemctl start postgresql; systemctl start mysql || systemctl start mariadb")


      def postgres(base, text):
          return shop.succeed(f"runuser -u postgres -- psql -XqAt -v ON_ERROR_STOP=1 -d {base} -c \"{text}\" 2>&1").strip()


      def mariadb(base, text):
          return shop.succeed(f"runuser -u mysql -- mysql -N {base} -e \"{text}\"").strip()


      def sqlite(file, text):
          return shop.succeed(f"runuser -u app -- sqlite3 {file} \"{text}\"").strip()


      def running(name, user, command):
          """A client that goes on changing things until it is stopped."""
          shop.succeed(f"systemd-run --quiet --unit={name} --uid={user} --setenv=PATH=$PATH bash -c 'while :; do {command}; sleep 0.2; done'")


      def restored(dataset):
          return f"/root/back/{dataset}"


      shop.wait_until_succeeds("runuser -u postgres -- psql -d postgres -c 'SELECT 1'")
      shop.wait_until_succeeds("runuser -u mysql -- mysql -e 'SELECT 1'")
      with subtest("four services, three of them written to all the time"):
          postgres("postgres", "CREATE ROLE clerk PASSWORD 'secret'")
          postgres("postgres", "CREATE DATABASE shop OWNER clerk")
          postgres("shop", "CREATE TABLE sold (id int, note text); CREATE TABLE paid (id int, note text)")
          mariadb("", "CREATE DATABASE wiki")
          mariadb("wiki", "CREATE TABLE page (id INT PRIMARY KEY AUTO_INCREMENT, words TEXT) ENGINE=InnoDB; CREATE TABLE log (id INT) ENGINE=InnoDB")
          shop.succeed("install -d -o app -g app -m 700 /srv/app")
          sqlite("/srv/app/app.db", "PRAGMA journal_mode = WAL; CREATE TABLE account (id INTEGER PRIMARY KEY, money INTEGER)")
          sqlite("/srv/app/app.db", "INSERT INTO account VALUES (1, 100), (2, 100)")
          running("seller", "postgres", "psql -Xq -d shop -c \"WITH n AS (INSERT INTO sold SELECT count(*), md5(random()::text) FROM sold RETURNING *) INSERT INTO paid SELECT * FROM n\"")
          running("writer", "mysql", "mysql wiki -e \"BEGIN; INSERT INTO page (words) VALUES (UUID()); INSERT INTO log VALUES (LAST_INSERT_ID()); COMMIT\"")
          running("payer", "app", "sqlite3 -cmd \".timeout 9000\" /srv/app/app.db \"BEGIN IMMEDIATE; UPDATE account SET money = money - 1 WHERE id = 1; UPDATE account SET money = money + 1 WHERE id = 2; COMMIT\"")
          if CLOUD:
              postgres("postgres", "CREATE ROLE nextcloud LOGIN")
              postgres("postgres", "CREATE DATABASE cloud OWNER nextcloud")
              shop.succeed("runuser -u nextcloud -- psql -Xq -d cloud -c 'CREATE TABLE share AS SELECT 42 AS token'")
              shop.succeed("install -d -o nextcloud -g nextcloud /srv/cloud /srv/cloud/config /srv/cloud/data; echo geese > /srv/cloud/data/note")
          for name in ("seller", "writer", "payer"):
              shop.wait_until_succeeds(f"systemctl is-active {name}")
          shop.wait_until_succeeds("test $(runuser -u postgres -- psql -XAt -d shop -c 'SELECT count(*) FROM paid') -gt 5")
      settle(shop, shop, [nova])
      datasets = ["app", "cloud", "shop", "wiki"] if CLOUD else ["app", "shop", "wiki"]
      if CLOUD:
          with subtest("what no capture closed is left as its operator has it, also at boot"):
              shop.succeed("systemctl start replicator-release-cloud; test ! -e /srv/cloud/config/config.php")
      with subtest("a night: every one is dumped by its own user, and nothing stays closed"):
          shop.succeed("systemctl start replicator-backup")
          assert sorted(one["name"] for one in status(shop)["datasets"] if one["copies"] == 1) == datasets, status(shop)
          owners = {"app": "app", "shop": "postgres", "wiki": "mysql", "cloud": "nextcloud"}
          for name in datasets:
              shop.succeed(f"test $(stat -c %U:%a /var/lib/replicator-dumps/{name}-dump) = {owners[name]}:700")
          if CLOUD:
              shop.wait_until_succeeds("grep 'maintenance.*false' /srv/cloud/config/config.php")
              shop.wait_until_succeeds("test ! -e /var/lib/replicator-dumps/.closed-cloud")
          for name in ("seller", "writer", "payer"):
              shop.succeed(f"systemctl is-active {name}; systemctl stop {name}; ! journalctl -u {name} | grep -i -E 'error|fatal'")
          postgres("shop", "SET max_parallel_workers_per_gather = 2; SELECT count(*) FROM sold")
      with subtest("what comes back is of one moment, by the database's own word"):
          for name in datasets:
              shop.succeed(f"{KEEPER} restore latest:{name} --target {restored(name)}")
          postgres("postgres", "CREATE DATABASE back")
          shop.succeed(f"runuser -u postgres -- psql -Xq -v ON_ERROR_STOP=1 -d back < {restored('shop')}/shop-dump/shop.sql")
          sold, paid, both = (int(postgres("back", f"SELECT count(*) FROM {table}")) for table in ("sold", "paid", "sold JOIN paid USING (id, note)"))
          assert sold == paid == both > 5, (sold, paid, both)
          shop.succeed(f"grep -q 'CREATE ROLE clerk' {restored('shop')}/shop-dump/globals.sql")
          mariadb("", "CREATE DATABASE back")
          shop.succeed(f"runuser -u mysql -- mysql back < {restored('wiki')}/wiki-dump/wiki.sql")
          pages, logged = mariadb("back", "SELECT (SELECT count(*) FROM page), (SELECT count(*) FROM page JOIN log USING (id))").split()
          assert int(pages) == int(logged) > 0, (pages, logged)
          shop.succeed(f"chmod 755 /root /root/back {restored('app')}; cp {restored('app')}/app-dump/app.db /srv/app/back.db; chown app /srv/app/back.db")
          assert sqlite("/srv/app/back.db", "PRAGMA integrity_check; SELECT sum(money) FROM account").split() == ["ok", "200"]
          if CLOUD:
              back = restored("cloud")
              shop.succeed(f"grep 'maintenance.*true' {back}/cloud/config/config.php; grep geese {back}/cloud/data/note")
              shop.succeed("runuser -u postgres -- psql -Xq -d postgres -c 'CREATE DATABASE cloudy'")
              shop.succeed(f"runuser -u postgres -- psql -Xq -v ON_ERROR_STOP=1 -d cloudy < {back}/cloud-dump/nextcloud.sql")
              assert postgres("cloudy", "SELECT token FROM share") == "42"
      with subtest("a database that is gone fails its dataset, and no other"):
          before = {one["id"] for one in json.loads(shop.succeed(f"{NODE} snapshots --json"))}
          postgres("postgres", "DROP DATABASE shop")
          shop.fail("systemctl start replicator-backup")
          new = [one["dataset"] for one in json.loads(shop.succeed(f"{NODE} snapshots --json")) if one["id"] not in before]
          assert sorted(new) == [name for name in datasets if name != "shop"], new
          shop.succeed("journalctl -u replicator-capture-shop | grep 'database \"shop\" does not exist'")
          shop.succeed("test -s /var/lib/replicator-dumps/shop-dump/shop.sql")
    '';
}
