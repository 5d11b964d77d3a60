# One disk for objects: XFS, encrypted where there is a key for it. Called as kompis-os calls its layouts; `disk` has
# name, devices, mountpoint and, if it is to be encrypted, luksKeyFile.
{
  disk,
  lib,
  ...
}:
let
  common = import ./common.nix { inherit disk lib; };
in
{
  disko.devices.disk.${disk.name} = {
    type = "disk";
    device = lib.head (lib.toList disk.devices);
    content = {
      type = "gpt";
      partitions.objects = {
        size = "100%";
        content = common.sealed {
          type = "filesystem";
          format = "xfs";
          inherit (disk) mountpoint;
          mountOptions = common.mountOptions ++ [ "prjquota" ];
        };
      };
    };
  };
}
// common.unlock "/dev/disk/by-partlabel/disk-${disk.name}-objects"
