"""Files that are made of pictures: exact ones, sets, thumbnails."""
