"""The task distributions and their data. Installed, and to be imported, as `tinymaml.tasks`.

To be read: random_streams (random numbers of each task), sinusoid; imageset (a data set's file), episodes (tasks drawn
from it), glyphs (images that code draws); folder, omniglot, miniimagenet and cifar_fs, which make such files, with
splits; reading, archive, npz, hdf5, image_decoding, checksum_block and atomic_files, by which files are read with
suspicion and written whole; goals, vector_env, navigation, robots, locomotion and environments, for policies.
"""

if __name__ == "tasks":
    raise ImportError("'tasks' is not a module of its own: import it as 'tinymaml.tasks'")
