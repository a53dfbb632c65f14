package registry

import (
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// upload answers what a push asks for; false when the request is no part of one.
func (h *Hostile) upload(w http.ResponseWriter, r *http.Request, kind, repo, at string) bool {
	switch {
	case kind == "upload" && r.Method == http.MethodPost:
		h.mu.Lock()
		defer h.mu.Unlock()
		d := digest.Digest(r.URL.Query().Get("mount"))
		if _, ok := h.blobs[d]; ok {
			w.WriteHeader(http.StatusCreated)
			return true
		}
		id := strconv.Itoa(len(h.uploads) + 1)
		h.uploads[id] = []byte{}
		w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id+"?state=a%2Bb")
		w.WriteHeader(http.StatusAccepted)
	case kind == "upload" && r.Method == http.MethodGet:
		h.mu.Lock()
		defer h.mu.Unlock()
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(h.uploads[at])-1)))
		w.WriteHeader(http.StatusNoContent)
	case kind == "upload":
		h.take(w, r, at)
	case kind == "manifest" && r.Method == http.MethodPut:
		raw, _ := io.ReadAll(r.Body)
		doc := Doc{r.Header.Get("Content-Type"), raw}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.docs[repo+"@"+doc.Desc().Digest.String()] = doc
		if !strings.HasPrefix(at, "sha256:") {
			h.docs[repo+":"+at] = doc
		}
		w.Header().Set("Docker-Content-Digest", doc.Desc().Digest.String())
		w.WriteHeader(http.StatusCreated)
	default:
		return false
	}
	return true
}

// take adds the body of a PATCH or PUT to an upload; a Content-Range must fit.
func (h *Hostile) take(w http.ResponseWriter, r *http.Request, id string) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	have, ok := h.uploads[id]
	start, _, ranged := strings.Cut(r.Header.Get("Content-Range"), "-")
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		return
	case ranged && start != strconv.Itoa(len(have)):
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	have = append(have, body...)
	h.uploads[id] = have
	w.Header().Set("Location", r.URL.String())
	if r.Method == http.MethodPatch {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if d := digest.Digest(r.URL.Query().Get("digest")); digest.FromBytes(have) != d || r.URL.Query().Get("state") != "a+b" {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"errors":[{"code":"DIGEST_INVALID","message":"no match"}]}`)
		return
	}
	h.blobs[digest.FromBytes(have)] = have
	delete(h.uploads, id)
	w.WriteHeader(http.StatusCreated)
}

// CutUpload takes n bytes of a body into its upload and cuts the connection.
func (h *Hostile) CutUpload(n int64) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		part, _ := io.ReadAll(io.LimitReader(r.Body, n))
		h.mu.Lock()
		id := path.Base(r.URL.Path)
		h.uploads[id] = append(h.uploads[id], part...)
		h.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
}

// Blob returns what the server holds under a digest, nil for nothing.
func (h *Hostile) Blob(d digest.Digest) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.blobs[d]
}
