"""Files of images: in folders, in archives, and as images.

formats          which formats are read, by the endings and the first bytes of files
image_files      image files, opened, and whether they changed
leftovers        what people do not mean as data
links            links on the way to files
walk             what is below a folder, and why some of it is left out
archives         what archives have in common
zips             zip files
tar_stream       the members of a tar file, one after another
tars             tar files
image_places     a folder, a zip file or a tar file, opened in the same way
jxl              how large a JPEG XL image is
tiffs            TIFF files as tifffile reads them
deep_images      files that Pillow reads in part
image_decoding   files as images
"""
