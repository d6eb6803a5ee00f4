"""The program ``wgmap``: what operators do, through the admin socket of any server."""
