# What the layouts share: how the disk is mounted, sealed and opened.
{ disk, lib }:
let
  keyFile = disk.luksKeyFile or null;
  mapped = "replicator-${disk.name}";
in
{
  # Data of strangers: no programs, devices or privileges. Without it the host still boots, and can be mended.
  mountOptions = [
    "noatime"
    "nofail"
    "nosuid"
    "nodev"
    "noexec"
  ];

  sealed =
    content:
    if keyFile == null then
      content
    else
      {
        type = "luks";
        name = mapped;
        # The key lies on the root disk, which is not there yet in the initrd.
        initrdUnlock = false;
        settings = {
          inherit keyFile;
          allowDiscards = true;
        };
        inherit content;
      };

  # With initrdUnlock = false disko writes nothing that opens the disk at boot: this line does.
  unlock =
    device:
    lib.optionalAttrs (keyFile != null) {
      environment.etc.crypttab.text = "${mapped} ${device} ${toString keyFile} luks,nofail,discard\n";
    };
}
