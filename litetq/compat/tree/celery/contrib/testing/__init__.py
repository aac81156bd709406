"""What tests of programs use."""
