"""One file a method: what is optimised, against what, with which losses."""
