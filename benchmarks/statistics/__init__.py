"""How often tests of differences find one, with and without one."""
