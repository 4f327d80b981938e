"""How the embedded model was made: fetch and render the art, compose scenes, train, bundle, check."""
