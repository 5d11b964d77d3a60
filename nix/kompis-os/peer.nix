# The node half of the role peer: the states of the apps that run here go to the hosts that they select. A host without
# such apps gets nothing of it.
self:
{
  config,
  lib,
  host,
  org,
  ...
}:
let
  kompis = import ./lib.nix { inherit lib; };
  replicator = self.lib.roster;
  name = host.name;
  said = (host.settings or { }).replicator or { };
  apps = kompis.appsOn org name;
  datasets = lib.mapAttrs (app: _: kompis.datasetOf org name app) apps;
  roster = kompis.rosterOf org;
  selected = lib.unique (lib.concatMap (one: one.providers) (builtins.attrValues datasets));
  preserve = (config.o11n or { }).preserve or { };
  storage =
    said.storage or (if preserve.enable or false then preserve.storage or "/srv/storage" else null);
  homeOf = app: (apps.${app}.principal or { }).home or "/var/lib/${app}";
  databaseOf = app: apps.${app}.database or app;
  hasDatabase = app: ((config.o11n or { }).postgresql or { }).databases or { } ? ${app};
  # Nextcloud's own state is more than a home and a database, and has them both in it.
  isCloud = app: config.services.replicator.state.${app}.nextcloud.enable;
  closes =
    app:
    let
      state = config.services.replicator.state.${app};
    in
    isCloud app || state.release != "" || state.snapshot.subvolume != null;
  # A capture that closes nothing may run more often than the backup that follows it.
  often = lib.filterAttrs (
    app: one: one.capture == "hourly" && one.onCalendar == null && hasDatabase app && !closes app
  ) datasets;
in
{
  _file = "replicator/nix/kompis-os/peer.nix";
  key = "replicator-kompis-os-peer";
  imports = [ self.nixosModules.node ];

  config = lib.mkIf (apps != { }) {
    services.replicator = {
      inherit name;
      roster = lib.mkDefault roster;
      state = lib.mapAttrs (app: _: {
        folders = lib.mkDefault (lib.optional (!isCloud app) (homeOf app));
        postgresql = lib.optional (hasDatabase app && !isCloud app) (databaseOf app);
      }) apps;
      node = {
        enable = true;
        datasets = lib.mapAttrs (_: one: {
          inherit (one)
            copies
            minimum
            spread
            residency
            exclude
            keep
            onCalendar
            ;
        }) datasets;
        # Who is selected, not all there are; an archive is no copy of what runs on itself.
        peers = lib.getAttrs (builtins.filter (peer: builtins.elem peer selected) (
          builtins.attrNames (replicator.peersOf (replicator.read roster) name)
        )) (replicator.peersOf (replicator.read roster) name);
        grantFile = lib.mkIf (said.grant or false) (
          config.sops.secrets.replica-grant.path or "/run/secrets/replica-grant"
        );
        stateDir = lib.mkIf (storage != null) (lib.mkDefault "${toString storage}/replicator");
        dumpDir = lib.mkIf (storage != null) (lib.mkDefault "${toString storage}/replicator-dumps");
      };
    };
    sops.secrets = lib.mkIf (said.grant or false) {
      replica-grant.restartUnits = [ "replicator-join.service" ];
    };
    systemd.timers = lib.mapAttrs' (
      app: _:
      lib.nameValuePair "replicator-capture-${app}" {
        wantedBy = [ "timers.target" ];
        timerConfig.OnCalendar = "hourly";
      }
    ) often;
  };
}
