# The role archive: this host keeps sealed objects for the organisation's apps, on the disk of its layout "packs".
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
  name = host.name;
  said = (host.settings or { }).replicator or { };
  packs = (host.disk-layouts or { }).packs or null;
  services = (org.role.archive or { }).services or [ ];
  vpn = kompis.vpnOf host;
in
{
  _file = "replicator/nix/kompis-os/archive.nix";
  key = "replicator-kompis-os-archive";
  imports = [
    self.nixosModules.provider
    self.nixosModules.enrol
  ];

  assertions = [
    {
      assertion = packs != null && (packs.mountpoint or null) != null;
      message = "host.${name} is an archive and has no disk for it: add [host.${name}.disk-layouts.packs] with layout, devices and mountpoint.";
    }
    {
      assertion = vpn != null;
      message = "host.${name} is an archive and in no vpn: others reach it there; add one to host.${name}.vpns.";
    }
  ];
  warnings =
    lib.optional (((org.service.backup or { }).settings or { }).tenant or { } == { })
      "The organisation declares no tenant: add [service.backup.settings.tenant.NAME] with root and quota, or let tenants in by codes (replicator-provider provider invite).";

  # Of the host's own class: no other host's age key opens it. Its public half is the host's identity.
  sops.secrets.replica-key.restartUnits = [ "replicator-provider.service" ];

  services.replicator = {
    inherit name;
    roster = kompis.rosterOf org;
    provider = {
      enable = true;
      # kompis-os makes the service's user with an id of its own, which outlives the system.
      user = lib.mkIf (builtins.elem "backup" services && org.service ? backup) "backup";
      identityFile = config.sops.secrets.replica-key.path or "/run/secrets/replica-key";
      mountPoint = lib.mkIf (packs != null) packs.mountpoint;
      # Root is formatted at each boot there, and /var has 1 GB: all of it is on the disk of objects.
      stateDir = lib.mkIf (packs != null) "${packs.mountpoint}/home";
      diskSize = said.disk-size or null;
      lock = lib.mkIf (said ? lock) said.lock;
      grace = lib.mkIf (said ? grace) said.grace;
      notice = lib.mkIf (said ? notice) said.notice;
      openFirewallOn = lib.optional (vpn != null) (org.vpn.${vpn}.interface or vpn);
    };
  };

  users.users = lib.mkIf (config.services.replicator.provider.user == "backup") {
    backup = {
      isSystemUser = true;
      group = "backup";
    };
  };
  users.groups = lib.mkIf (config.services.replicator.provider.user == "backup") { backup = { }; };
}
