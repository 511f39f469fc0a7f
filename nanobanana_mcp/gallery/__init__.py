"""The gallery: pages on this machine where a person looks at the library and paints where a picture should change."""
