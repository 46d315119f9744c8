"""The tests of `greeter_core`."""
