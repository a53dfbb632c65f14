package odd

import (
	"path"
	"slices"
)

// changes are what a layer does to a unit of a lower layer.
var changes = []func(*Maker){
	hidesFile, hidesFolder, opaque, opaque, opaqueFolder, anew, folderForFile, fileForFolder,
	passes, linksBelow, linkOver, breaksLink, attributes, hidesNothing, hidesUnit, childrenFirst,
	headersOfLinks, throughLower,
}

// lower takes a unit that this layer has not touched; false: there is none left.
func (m *Maker) lower() (string, bool) {
	if len(m.low) == 0 {
		return "", false
	}
	u := m.low[0]
	m.low = m.low[1:]
	return u, true
}

// one takes a unit of a lower layer and something in it of the given types.
func (m *Maker) one(types string) (unit, p string, ok bool) {
	for {
		if unit, ok = m.lower(); !ok {
			return "", "", false
		}
		if list := m.below(unit, types); len(list) > 0 {
			return unit, pick(m, list), true
		}
	}
}

// files are the types that a name can be exchanged for.
const files = "012346"

func hidesFile(m *Maker) {
	if _, p, ok := m.one(files); ok {
		m.hide(p)
	}
}

func hidesFolder(m *Maker) {
	if _, p, ok := m.one("5"); ok {
		m.hide(p)
	}
}

func hidesUnit(m *Maker) {
	if u, ok := m.lower(); ok {
		m.hide(u)
	}
}

func hidesNothing(m *Maker) {
	if u, ok := m.lower(); ok {
		m.whiteout(u + "/never-there")
	}
}

// opaque hides all that a folder has below; the mark stands before, between or behind what the layer puts there, with or without the folder.
func opaque(m *Maker) {
	u, ok := m.lower()
	if ok {
		opaqueAt(m, u)
	}
}

func opaqueFolder(m *Maker) {
	if _, p, ok := m.one("5"); ok {
		opaqueAt(m, p)
	}
}

func opaqueAt(m *Maker, p string) {
	m.find(p).kids = map[string]*node{}
	mark, listed := m.r.IntN(3), m.chance(2)
	if listed && m.chance(2) {
		m.dir(p)
		listed = false
	}
	for k := range 3 {
		if k == mark {
			m.whiteout(p + "/.wh..opq")
		}
		m.file(m.name(p))
	}
	if listed {
		m.dir(p)
	}
}

// anew hides a name and gives it to something else, in either order.
func anew(m *Maker) {
	_, p, ok := m.one(files + "5")
	if !ok {
		return
	}
	before := m.chance(2)
	if before {
		m.hide(p)
	}
	if m.chance(2) {
		delete(m.find(path.Dir(p)).kids, path.Base(p))
		m.dir(p)
		m.file(m.name(p))
	} else {
		m.file(p)
	}
	if !before {
		m.whiteout(p)
		m.note(p, HidesIn)
	}
}

func folderForFile(m *Maker) {
	if _, p, ok := m.one(files); ok {
		m.dir(p)
		m.file(m.name(p))
	}
}

func fileForFolder(m *Maker) {
	u, p, ok := m.one("5")
	if !ok {
		return
	}
	switch m.r.IntN(4) {
	case 0:
		m.file(p)
	case 1:
		m.symlink(p)
	case 2:
		m.node(p)
	case 3:
		to := m.name(u)
		m.file(to)
		m.link(p, to)
	}
}

// passes puts something into a folder which the layer does not list.
func passes(m *Maker) {
	if _, p, ok := m.one("5"); ok {
		m.file(m.name(p))
	}
}

// linksBelow gives files of lower layers more names, also by way of each other, in this unit and another.
func linksBelow(m *Maker) {
	u, p, ok := m.one(files)
	if !ok {
		return
	}
	first := m.name(u)
	m.link(first, p)
	m.link(m.name(u), first)
	if other, ok := m.lower(); ok {
		m.link(m.name(other), p)
	}
}

// linkOver puts a link where a lower layer has something.
func linkOver(m *Maker) {
	_, p, ok := m.one(files)
	if !ok {
		return
	}
	if _, to, ok := m.one("034"); ok {
		m.link(p, to)
	}
}

// breaksLink replaces one name of a file that may have others.
func breaksLink(m *Maker) {
	if _, p, ok := m.one("1"); ok {
		m.file(p)
	}
}

// attributes lists a folder again.
func attributes(m *Maker) {
	if _, p, ok := m.one("5"); ok {
		m.dir(p)
	}
}

// childrenFirst lists folders behind what they hold, the outer one last.
func childrenFirst(m *Maker) {
	u, ok := m.lower()
	if !ok {
		return
	}
	a := m.name(u)
	b := m.name(a)
	m.file(m.name(b))
	m.dir(b)
	m.dir(a)
	m.note(a, ListedLate)
	m.note(b, ListedLate)
	m.dir(u)
}

// headersOfLinks makes a link whose header says other attributes than the file's own, which count.
func headersOfLinks(m *Maker) {
	u, ok := m.lower()
	if !ok {
		return
	}
	p, l := m.name(u), m.name(u)
	m.file(p)
	m.put(m.common(entry{name: l, typ: '1', mode: 0o751, link: p}))
}

// throughLower has a path through a symbolic link of a lower layer.
func throughLower(m *Maker) {
	for _, p := range m.pairs {
		u := path.Dir(p.link)
		i := slices.Index(m.low, u)
		if i < 0 || m.find(p.link) == nil || m.find(p.link).typ != '2' || m.find(p.dir) == nil || m.find(p.dir).typ != '5' {
			continue
		}
		m.low = slices.Delete(m.low, i, i+1)
		m.done[u] = true
		m.put(m.common(entry{name: p.link + "/below", typ: '0', mode: 0o644}))
		for _, at := range []string{p.link, p.link + "/below", p.dir, p.dir + "/below"} {
			m.note(at, Through)
		}
		return
	}
}
