# The options of these modules as a list for the reference: name, type, default and description, all as text.
{ lib, modules }:
let
  evaluated = lib.nixosSystem {
    system = "x86_64-linux";
    modules = modules ++ [ { networking.hostName = "host"; } ];
  };
  said =
    value:
    if value ? text && value ? _type then
      (if value._type == "literalExpression" then "`${value.text}`" else value.text)
    else
      "`${if builtins.isFunction value || lib.isDerivation value then "..." else builtins.toJSON value}`";
  # Submodules too, as <name>.
  walk =
    prefix: options:
    lib.concatLists (
      lib.mapAttrsToList (
        name: one:
        let
          path = prefix ++ [ name ];
          element = one.type.nestedTypes.elemType or (one.type.elem or null);
          inner = if element == null then null else element;
          below =
            if inner == null || (inner.name or "") != "submodule" then
              [ ]
            else
              walk (path ++ [ "<name>" ]) (
                removeAttrs (if inner ? getSubOptions then inner.getSubOptions [ ] else subOptions inner) [
                  "_module"
                ]
              );
        in
        if !(lib.isOption one) then
          walk path one
        else if one.internal or false then
          [ ]
        else
          [
            {
              name = lib.concatStringsSep "." path;
              type = one.type.description;
              description = if builtins.isAttrs one.description then one.description.text else one.description;
              default =
                if one ? defaultText then
                  (if builtins.isString one.defaultText then one.defaultText else said one.defaultText)
                else if one ? default then
                  said one.default
                else
                  null;
            }
          ]
          ++ below
      ) options
    );
  subOptions =
    type:
    (lib.evalModules {
      modules = type.modules ++ [ { _module.args.name = "<name>"; } ];
    }).options;
  parts = one: lib.splitString "." (lib.removePrefix "services.replicator." one.name);
  part = one: if lib.length (parts one) > 1 then lib.head (parts one) else "";
in
lib.sort (a: b: if part a == part b then a.name < b.name else part a < part b) (
  walk [
    "services"
    "replicator"
  ] evaluated.options.services.replicator
)
