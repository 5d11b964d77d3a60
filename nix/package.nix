{
  lib,
  isa-l ? null,
  python3Packages,
}:
let
  fs = lib.fileset;
in
python3Packages.buildPythonApplication {
  pname = "replicator";
  version = "0.1.0";
  pyproject = true;

  # What is built and what tests it; a change of documents or of nix/ builds nothing anew.
  src = fs.toSource {
    root = ../.;
    fileset = fs.unions [
      ../pyproject.toml
      ../README.md
      ../LICENSE
      ../chunker
      ../scheduler
      ../replicator
      ../tests
    ];
  };

  build-system = [ python3Packages.setuptools ];

  dependencies =
    with python3Packages;
    [
      aiohttp
      blake3
      click
      cryptography
      msgspec
      numpy
      pathspec
      platformdirs
      pyeclib
      pyzstd
      rich
      segno
      shamir-mnemonic
      sqlite-utils
      zstandard
    ]
    # For providers whose objects lie in a bucket.
    ++ lib.optional (python3Packages ? obstore) python3Packages.obstore;

  optional-dependencies.mount = [ python3Packages.mfusepy ];

  # nixpkgs' liberasurecode finds ISA-L when it is asked for it, or not at all; PyPI's wheel has it inside.
  makeWrapperArgs = lib.optional (isa-l != null) "--prefix LD_LIBRARY_PATH : ${isa-l}/lib";
  preCheck = lib.optionalString (isa-l != null) "export LD_LIBRARY_PATH=${isa-l}/lib";

  # Floors in pyproject.toml are what was tested there; here the tests below say whether nixpkgs' versions do.
  pythonRelaxDeps = true;

  nativeCheckInputs = with python3Packages; [
    hypothesis
    mfusepy
    pytest-timeout
    pytestCheckHook
  ];

  # What needs neither minutes nor documents, other programs or root; the C kernel against its Python twin is in it.
  enabledTestPaths = [
    "tests/catalog"
    "tests/chunker"
    "tests/crypto"
    "tests/format"
    "tests/notify"
    "tests/pack"
    "tests/provider"
    "tests/scheduler"
    "tests/test_config.py"
    "tests/test_settings.py"
  ];
  disabledTestMarks = [
    "process"
    "slow"
  ];

  pythonImportsCheck = [
    "chunker._kernel"
    "replicator.cli.main"
    "scheduler"
  ];

  meta = {
    description = "Sealed, deduplicated, geo-replicated backup for people who run their own servers together";
    license = lib.licenses.mit;
    mainProgram = "replicator";
    platforms = lib.platforms.linux;
  };
}
