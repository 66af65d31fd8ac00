package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"mime"
	"net/http"
	"path"
	"sync"
)

// The vendored libraries and their licences are in assets/vendor: htmx.org
// 2.0.11 (dist/htmx.min.js) and uplot 1.6.32 (dist/uPlot.iife.min.js,
// dist/uPlot.min.css), unchanged, from npm.
//
//go:embed assets
var assetFiles embed.FS

// assetNames maps the names in URLs to embedded files.
var assetNames = map[string]string{
	"htmx.js":     "assets/vendor/htmx.min.js",
	"uplot.js":    "assets/vendor/uplot.min.js",
	"uplot.css":   "assets/vendor/uplot.min.css",
	"console.js":  "assets/console.js",
	"console.css": "assets/console.css",
	"icon.svg":    "assets/icon.svg",
}

// versions are the assets' digests. They are part of the URLs, so that assets can be
// cached forever.
var versions = sync.OnceValue(func() map[string]string {
	out := map[string]string{}
	for name, file := range assetNames {
		text, err := assetFiles.ReadFile(file)
		if err != nil {
			panic(err) // assetNames names a file that is not embedded
		}
		sum := sha256.Sum256(text)
		out[name] = hex.EncodeToString(sum[:6])
	}
	return out
})

func assetURL(name string) string { return "/assets/" + name + "?v=" + versions()[name] }

func assets() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("file")
		text, err := assetFiles.ReadFile(assetNames[name])
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
		if r.URL.Query().Get("v") == versions()[name] {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		_, _ = w.Write(text)
	})
}
