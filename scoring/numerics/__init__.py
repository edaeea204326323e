"""Pure numerics: arrays in, frozen results out, a generator passed in. No Django here."""
