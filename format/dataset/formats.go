package dataset

import (
	"archive/zip"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// Kinds of data files, named as datasets names its builders. These are read here; the others are known so that the
// most frequent extension decides as it does there, and so that an error can say what was found.
const (
	parquetKind     = "parquet"
	imageFolderKind = "imagefolder"
	webDatasetKind  = "webdataset"
	csvKind         = "csv"
	jsonKind        = "json"
)

// folderKinds also know their extensions in capitals; other kinds do not.
var folderKinds = []string{imageFolderKind, "audiofolder", "videofolder", "meshfolder", "pdffolder", "niftifolder", "pdb"}

var kindExtensions = map[string]string{
	parquetKind: "parquet geoparquet gpq",
	imageFolderKind: "blp bmp dib bufr cur pcx dcx dds ps eps fit fits fli flc ftc ftu gbr gif grib png apng jp2 j2k jpc jpf " +
		"jpx j2c icns ico im iim tif tiff jfif jpe jpg jpeg msp pcd pxr pbm pgm ppm pnm psd bw rgb rgba sgi ras tga icb vda " +
		"vst webp wmf emf xbm xpm",
	csvKind: "csv tsv", jsonKind: "json jsonl ndjson", "arrow": "arrow", "text": "txt", "conll": "conll conllu",
	webDatasetKind: "tar", "xml": "xml", "hdf5": "hdf5 h5", "eval": "eval", "harbor": "toml md", "lance": "lance",
	"tsfile": "tsfile", "vortex": "vortex", "fasta": "fa fasta fna ffn faa frn afa", "genbank": "gb gbk genbank",
	"fastq": "fq fastq", "pdb": "pdb ent", "mmcif": "cif mmcif",
	"audiofolder": "mpg aiff au avr caf flac htk svx mat4 mat5 mpc2k ogg paf pvf raw rf64 sd2 sds ircam voc w64 wav nist " +
		"wavex wve xi mp3 opus 3gp 3g2 asf flv m4v webm f4v wmv wma ogm mxf nut",
	"videofolder": "mpeg avi mp4 mov mkv", "meshfolder": "glb gltf ply stl", "pdffolder": "pdf", "niftifolder": "nii",
}

// kindOf maps an extension with its dot to a kind.
var kindOf = func() map[string]string {
	kinds := map[string]string{}
	for kind, extensions := range kindExtensions {
		for _, ext := range strings.Fields(extensions) {
			kinds["."+ext] = kind
			if slices.Contains(folderKinds, kind) {
				kinds["."+strings.ToUpper(ext)] = kind
			}
		}
	}
	return kinds
}()

var metadataFiles = []string{"metadata.csv", "metadata.jsonl", "metadata.parquet"}

// extensions returns every dotted part of a file's name after the first: a.tar.gz has .tar and .gz.
func extensions(file string) []string {
	parts := strings.Split(path.Base(file), ".")[1:]
	for i, p := range parts {
		parts[i] = "." + p
	}
	return parts
}

func hasDataExtension(file string) bool {
	return slices.ContainsFunc(extensions(file), func(ext string) bool {
		return kindOf[ext] != "" || ext == ".zip"
	})
}

// inferKind decides what kind of data set the files are: the kind of their most frequent extension, counted over all
// dotted parts. Metadata files count last, and parquet wins a draw.
func (t *tree) inferKind(splits []splitFiles) (string, error) {
	kind := ""
	for i, s := range splits {
		k, err := t.inferSplitKind(s.files)
		if err != nil {
			return "", err
		}
		if i > 0 && k != kind {
			return "", fmt.Errorf("%w: split %q holds %s files, but split %q %s", ErrUnsupported,
				splits[0].split, orUnknown(kind), s.split, orUnknown(k))
		}
		kind = k
	}
	if kind == "" {
		return "", fmt.Errorf("%w in %q: expected parquet files or a folder of images", ErrNoData, t.root)
	}
	return kind, nil
}

func orUnknown(kind string) string {
	if kind == "" {
		return "unknown"
	}
	return kind
}

// favourites break draws in this order; then the extension that sorts last wins.
var favourites = []string{".parquet", ".lance", ".vortex", ".arrow", ".jsonl", ".json", ".csv"}

func (t *tree) inferSplitKind(files []string) (string, error) {
	type key struct {
		ext      string
		metadata bool
	}
	counts := map[key]int{}
	for _, f := range files {
		for _, ext := range extensions(f) {
			counts[key{strings.ToLower(ext), slices.Contains(metadataFiles, path.Base(f))}]++
		}
	}
	keys := make([]key, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	rank := func(ext string) int {
		if i := slices.Index(favourites, ext); i >= 0 {
			return i
		}
		return len(favourites)
	}
	sort.Slice(keys, func(i, j int) bool {
		a, b := keys[i], keys[j]
		if a.metadata != b.metadata {
			return b.metadata
		}
		if counts[a] != counts[b] {
			return counts[a] > counts[b]
		}
		if rank(a.ext) != rank(b.ext) {
			return rank(a.ext) < rank(b.ext)
		}
		return a.ext > b.ext
	})
	for _, k := range keys {
		if kind := kindOf[k.ext]; kind != "" {
			return kind, nil
		}
		if k.ext == ".zip" {
			return t.inferArchiveKind(files)
		}
	}
	return "", nil
}

// inferArchiveKind looks into the first ten archives. Unlike elsewhere a draw goes to the extension seen first.
func (t *tree) inferArchiveKind(files []string) (string, error) {
	counts := map[string]int{}
	var order []string
	archives := 0
	for _, f := range files {
		if !strings.HasSuffix(f, ".zip") {
			continue
		}
		if archives++; archives > 10 {
			break
		}
		full := filepath.Join(t.root, filepath.FromSlash(f))
		z, err := zip.OpenReader(full)
		if err != nil {
			return "", fileError(full, damaged("%w", err))
		}
		for _, member := range z.File {
			for _, ext := range extensions(member.Name) {
				ext = strings.ToLower(ext)
				if counts[ext]++; counts[ext] == 1 {
					order = append(order, ext)
				}
			}
		}
		z.Close()
	}
	best := ""
	for _, ext := range order {
		if counts[ext] > counts[best] {
			best = ext
		}
	}
	return kindOf[best], nil
}

// keep drops files that the chosen kind cannot read, such as a stray text file between parquet shards.
func keep(kind string, splits []splitFiles) {
	for i := range splits {
		splits[i].files = slices.DeleteFunc(splits[i].files, func(f string) bool {
			if kind == imageFolderKind && slices.Contains(metadataFiles, path.Base(f)) {
				return false
			}
			return !slices.ContainsFunc(extensions(f), func(ext string) bool { return kindOf[ext] == kind || ext == ".zip" })
		})
	}
}
