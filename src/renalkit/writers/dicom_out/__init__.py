"""How do results on an ultrasound image or cine, or a CT series, go back to the reading room?

    header = read_us_header(path)                        readers.dicom_source
    label = ResultLabel("Renal masses", 901, now)        what the new series is called
    data = us_segmentation(header, segments, label)      outlines frame by frame
    data = secondary_capture(header, picture, label, ..) a page or an overlay, any viewer shows it
    data = measurement_report(header, findings, label)   outlines and figures with units
    save(data, path)

    headers = [read_ct_header(path) for path in slices]        of one CT series
    data = ct_segmentation(headers, marked, segments, label)   a number per voxel of the files
    data = ct_report(headers, findings, label, data)           figures of each segment
    data = encapsulated_pdf(sources, pdf, label, title, ...)   a page

`perfusion` turns a bolus fit of `ceus.perfusion` into coded quantities, curve and algorithm.

Frames count from 0 here and from 1 in the files. A result carries the patient and the study of its
source, and nothing else that could tell who or where.
"""
