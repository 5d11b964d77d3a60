# A WireGuard mesh from the roster: every host of it reaches every other directly, or is reached by it. An extra wall;
# who somebody is, is decided by keys of the program's own.
{
  config,
  lib,
  ...
}:
let
  cfg = config.services.replicator;
  mesh = cfg.mesh;
  roster = import ../lib/roster.nix { inherit lib; };
  sizes = import ../lib/sizes.nix { inherit lib; };
  me = cfg.hosts.host.${cfg.name} or { };
  port = endpoint: sizes.number (lib.last (lib.splitString ":" endpoint));
  width = if lib.hasInfix ":" (me.address or "") then "/64" else "/24";
in
{
  imports = [ ./common.nix ];

  options.services.replicator.mesh = {
    enable = lib.mkEnableOption "a WireGuard interface to the hosts of the roster";

    interface = lib.mkOption {
      type = lib.types.strMatching "[a-z][a-z0-9-]{0,14}";
      default = "wg0";
      description = "What the interface is called.";
    };

    port = lib.mkOption {
      type = lib.types.port;
      default = if (me.endpoint or null) == null then 51820 else port me.endpoint;
      defaultText = lib.literalMD "that of the host's endpoint in the roster, else 51820";
      description = "UDP port, open where the roster says that this host is reached.";
    };

    privateKeyFile = lib.mkOption {
      type = lib.types.nullOr lib.types.externalPath;
      default = null;
      example = "/run/secrets/wireguard";
      description = "NAME.wireguard of `replicator host new NAME`.";
    };

    mtu = lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      example = 1380;
      description = "For ways with a smaller one, such as DSL.";
    };
  };

  config = lib.mkIf mesh.enable {
    assertions = [
      {
        assertion = cfg.roster != null;
        message = "services.replicator.mesh needs services.replicator.roster: it is the list of who is in it.";
      }
      {
        assertion = mesh.privateKeyFile != null;
        message = "services.replicator.mesh.privateKeyFile is not set: bring the key ${cfg.name}.wireguard that `replicator host new ${cfg.name}` wrote.";
      }
      {
        assertion = (me.wireguard or null) != null && (me.address or null) != null;
        message = "The roster's host.${cfg.name} needs wireguard and address to be in the mesh: `replicator host new ${cfg.name} --address ...` prints both.";
      }
    ];

    networking.wireguard.interfaces.${mesh.interface} = {
      ips = lib.optional ((me.address or null) != null) "${me.address}${width}";
      listenPort = mesh.port;
      privateKeyFile = mesh.privateKeyFile;
      mtu = mesh.mtu;
      peers = roster.meshOf cfg.hosts cfg.name;
    };
    networking.firewall.allowedUDPPorts = lib.optional ((me.endpoint or null) != null) mesh.port;
    # Names for people; the program pins keys.
    networking.hosts = lib.mapAttrs' (
      name: host: lib.nameValuePair host.address [ "${name}.replicator" ]
    ) (lib.filterAttrs (_: host: host.address != null) cfg.hosts.host);
  };
}
