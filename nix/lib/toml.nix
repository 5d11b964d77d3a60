# An attribute set as TOML text: plain values first, then tables. Null is left out. JSON's strings, numbers and lists of
# them are TOML's too.
{ lib }:
let
  isTable = value: builtins.isAttrs value;
  # A path is a name; as JSON it would be copied into the store.
  flat =
    value:
    if builtins.isPath value then
      toString value
    else if builtins.isList value then
      map flat value
    else
      value;
  key = name: if builtins.match "[A-Za-z0-9_-]+" name != null then name else builtins.toJSON name;
  table =
    path: values:
    let
      present = lib.filterAttrs (_: value: value != null) values;
      plain = lib.filterAttrs (_: value: !isTable value) present;
      tables = lib.filterAttrs (_: isTable) present;
    in
    lib.optionalString (path != [ ] && plain != { }) "\n[${lib.concatMapStringsSep "." key path}]\n"
    + lib.concatStrings (
      lib.mapAttrsToList (name: value: "${key name} = ${builtins.toJSON (flat value)}\n") plain
    )
    + lib.concatStrings (lib.mapAttrsToList (name: value: table (path ++ [ name ]) value) tables);
in
table [ ]
