"""What fits litetq into other programs; each module is loaded only where it is asked for."""
