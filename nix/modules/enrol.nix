# The first boot of a provider: before it serves anybody it shows that its key is the one the roster names and that its
# disk is there, has room for what is offered, and gives back what is written. What it showed is kept.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.replicator;
  provider = cfg.provider;
  proof = "${toString provider.stateDir}/enrolled.json";
  served = config.systemd.services.replicator-provider;
in
{
  imports = [ ./provider.nix ];

  options.services.replicator.enrol.enable =
    lib.mkEnableOption "the proof of key and disk before a provider serves for the first time"
    // {
      default = provider.enable;
      defaultText = lib.literalMD "where there is a provider";
    };

  config = lib.mkIf (cfg.enrol.enable && provider.enable) {
    systemd.services.replicator-enrol = {
      description = "replicator: prove key and disk";
      inherit (served) environment;
      requires = [ "replicator-provider-folders.service" ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "replicator-provider-folders.service"
      ];
      before = [ "replicator-provider.service" ];
      onFailure = cfg.onFailure;
      restartIfChanged = false;
      path = [ pkgs.coreutils ];
      unitConfig = {
        inherit (served.unitConfig) RequiresMountsFor;
      };
      # Once: a disk that fills up later must not keep what it holds from those it belongs to.
      script = ''
        if [ -e ${proof} ]; then exit 0; fi
        ${lib.getExe cfg.package} provider prove --json > ${proof}.new
        mv ${proof}.new ${proof}
        cat ${proof}
        echo "On each tenant's keeper: replicator peer add ADDRESS, with the address above."
      '';
      serviceConfig =
        removeAttrs served.serviceConfig [
          "ExecStart"
          "NotifyAccess"
          "Restart"
          "RestartSec"
          "LimitNOFILE"
          "MemoryMax"
        ]
        // {
          Type = "oneshot";
          RemainAfterExit = true;
          TimeoutStartSec = "10min";
        };
    };
    systemd.services.replicator-provider = {
      requires = [ "replicator-enrol.service" ];
      after = [ "replicator-enrol.service" ];
    };
  };
}
