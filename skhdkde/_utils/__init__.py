"""What every other room uses, and what knows nothing of kernels or densities.

Each file is one subject; other rooms import from the files.

===========  ==========================================================================
typing       roles that have no abstract base class, and names for kinds of arrays
arrays       functions of arrays of numpy, torch and KeOps, and of X in any library
validation   checks of X, weights (made relative there) and parameters
frames       errors that name a column of a data frame, and tables of results
hints        ends of errors about parameters: what may have been meant
moments      weight, mean, variance and covariance of blocks of points, which merge
random       seeds, and a random order of rows on which blocks of X agree
hashing      hashes of rows, by which duplicates are found
threads      tasks on threads, with one BLAS thread in each; progress bars
warnings     warnings that name the user's line
===========  ==========================================================================
"""
