{ lib, ... }: lib.runTests { }
