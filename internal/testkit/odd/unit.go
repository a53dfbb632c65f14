package odd

import (
	"fmt"
	"path"
	"strings"
)

// What objects have, odd and usual.
var (
	sizes  = []int{0, 0, 1, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 8192, 20000, 66000}
	modes  = []int64{0o644, 0o644, 0o644, 0o755, 0o600, 0o444, 0, 0o777, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777}
	dmodes = []int64{0o755, 0o755, 0o755, 0o700, 0o1777, 0o2775, 0, 0o3711}
	owners = []int64{0, 0, 0, 1, 1000, 65534, 65535, 65536, 100000, 1<<21 - 1, 1 << 21, 1<<31 - 1, 1 << 31, 1<<32 - 2}
	times  = []int64{0, 1, -1, -86400 * 365 * 60, -1 << 31, -1<<31 - 1, 1<<31 - 1, 1 << 31, 1 << 32, 1<<33 - 1, 1 << 33, 1 << 34, 253402300800, 1 << 40}
	nanos  = []int64{0, 0, 1, 999999999, 500000000, 120000000}
	marks  = []string{"", " ", "\n", "\xff\xfe", "é日本", "\\", "'\"", ".", "..", "*", "-", "\x01\x7f", ".wh.", "\t"}
)

// capability is cap_net_raw=ep as security.capability holds it.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// acl lets user 1000 read a file of mode 0640.
const acl = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"

// common gives an entry owner, time and a form.
func (m *Maker) common(e entry) entry {
	e.form = form(m.r.IntN(4))
	e.sec = 1600000000 + int64(m.r.IntN(1e8))
	if m.chance(4) {
		e.uid, e.gid = pick(m, owners), pick(m, owners)
	}
	if m.chance(6) {
		e.sec = pick(m, times)
	}
	if m.chance(4) {
		e.nsec = pick(m, nanos)
	}
	return e
}

// name is a new name in dir.
func (m *Maker) name(dir string) string {
	m.count++
	n := fmt.Sprintf("%x", m.count)
	switch m.r.IntN(20) {
	case 0:
		n = fmt.Sprintf("%s%s", n, strings.Repeat(pick(m, []string{"n", "\xf0", "ü"}), 300)[:255-len(n)])
	case 1, 2:
		n += pick(m, marks) + n
	}
	return dir + "/" + n
}

// written is a path as writers of tars spell it.
func (m *Maker) written(p string) string {
	switch m.r.IntN(12) {
	case 0, 1, 2:
		return "./" + p
	case 3:
		return "/" + p
	case 4:
		return strings.Replace(p, "/", "//", 1)
	case 5:
		return strings.Replace(p, "/", "/./", 1)
	}
	return p
}

func (m *Maker) dir(p string) {
	e := m.common(entry{name: m.written(p) + "/", typ: '5', mode: pick(m, dmodes)})
	if m.chance(10) {
		e.xattrs = map[string]string{"user.dir": p, "trusted.dir": "\x00\xff"}
	}
	m.put(e)
}

func (m *Maker) file(p string) {
	size := m.r.IntN(700)
	if m.chance(4) {
		size = pick(m, sizes)
	}
	at := m.r.IntN(len(m.pool) - size)
	m.put(m.common(entry{name: m.written(p), typ: '0', mode: pick(m, modes), data: m.pool[at : at+size]}))
}

// attributed is a file with extended attributes.
func (m *Maker) attributed(p string) {
	e := m.common(entry{name: m.written(p), typ: '0', mode: 0o755, data: []byte("attributed")})
	switch m.r.IntN(5) {
	case 0:
		e.xattrs = map[string]string{"security.capability": capability}
	case 1:
		e.xattrs = map[string]string{"user.a": "", "user.b": "a\x00b\nc", "trusted.é": "=x="}
	case 2:
		e.xattrs = map[string]string{"user.long": string(m.pool[:m.r.IntN(2000)]), "security.other": "s"}
	case 3:
		e.mode, e.xattrs = 0o640, map[string]string{"system.posix_acl_access": acl}
	case 4:
		e.xattrs = map[string]string{"trusted.overlay.redirect": "/etc", "user.overlay.opaque": "y", "user.kept": "k"}
	}
	m.put(e)
}

// sparse is a file with holes, up to more pieces than fit into two blocks of GNU's old map.
func (m *Maker) sparse(p string) {
	e := m.common(entry{name: m.written(p), typ: '0', mode: 0o644, form: gnu})
	if e.form != pax {
		e.form = gnu
	}
	many, at := pick(m, []int{0, 1, 2, 4, 5, 25, 30}), int64(0)
	for range many {
		at += 512 * int64(m.r.IntN(20))
		n := 512 * (1 + int64(m.r.IntN(3)))
		e.pieces = append(e.pieces, piece{at, n})
		at += n
		e.data = append(e.data, m.pool[at:at+n]...)
	}
	switch e.size = at; {
	case many == 0 || m.chance(2): // ends with a hole
		e.size += 1 + int64(m.r.IntN(100000))
	case m.chance(2): // ends within a block
		e.pieces[many-1].len -= 100
		e.size, e.data = e.size-100, e.data[:len(e.data)-100]
	}
	if many == 0 {
		e.pieces = []piece{{e.size, 0}}
	}
	m.put(e)
}

func (m *Maker) symlink(p string) {
	to := pick(m, []string{".", "/", "../..", "/etc/passwd", "nowhere", "../" + strings.Repeat("../", 50) + "etc", strings.Repeat("long/", 60) + "l", strings.Repeat("l", 4095), "\xff\n", p})
	for dir := path.Dir(p); dir != "." && strings.ContainsAny(to[:1], "./"); dir = path.Dir(dir) {
		m.note(dir, LinksOut)
	}
	e := m.common(entry{name: m.written(p), typ: '2', mode: 0o777, link: to})
	if m.chance(8) {
		e.xattrs = map[string]string{"trusted.link": p}
	}
	m.put(e)
}

func (m *Maker) node(p string) {
	e := m.common(entry{name: m.written(p), typ: pick(m, []byte("3346")), mode: pick(m, modes)})
	if e.typ != '6' {
		e.major, e.minor = 1+int64(m.r.IntN(4095)), int64(m.r.IntN(1<<18))
	}
	m.put(e)
}

// link gives a file another name. The header says the attributes of the file.
func (m *Maker) link(p, to string) {
	e := m.find(to).entry
	e.name, e.typ, e.link, e.form, e.major, e.minor = m.written(p), '1', m.written(to), form(m.r.IntN(4)), 0, 0
	if e.nsec != 0 {
		e.form = pax
	}
	m.put(e)
}

// through makes a folder, a link to it, and a file whose path leads through the link.
func through(m *Maker, dir string) {
	p := pair{m.name(dir), m.name(dir)}
	m.dir(p.dir)
	m.put(m.common(entry{name: p.link, typ: '2', mode: 0o777, link: path.Base(p.dir)}))
	m.putAt(m.common(entry{name: p.link + "/through", typ: '0', mode: 0o644}), p.dir+"/through")
	m.pairs = append(m.pairs, p)
}

// unit makes a folder with a bit of everything.
func (m *Maker) unit(dir string) {
	listed := m.r.IntN(12) // 0: behind what it holds; 1: not at all
	if listed > 1 {
		m.dir(dir)
	}
	here, last := dir, ""
	for range 30 + m.r.IntN(60) {
		p := m.name(here)
		switch n := m.r.IntN(100); {
		case n < 4:
			m.symlink(p)
		case n < 8 && last != "":
			m.link(p, last)
			continue
		case n < 14:
			if m.dir(p); m.chance(2) && len(p) < 1500 {
				here = p
			} else if m.chance(3) {
				here = dir
			}
			continue
		case n < 17:
			m.node(p)
		case n < 19:
			m.sparse(p)
		case n < 22:
			m.attributed(p)
		case n < 24:
			twice(m, p)
			continue
		default:
			m.file(p)
		}
		last = p
	}
	if listed < 2 {
		m.note(path.Dir(dir), LateIn)
	}
	if m.chance(3) {
		through(m, dir)
	}
	switch listed {
	case 0:
		m.dir(dir)
		m.note(dir, ListedLate)
	case 1:
		m.note(dir, Unlisted)
	}
}

// twice has a name in one layer more than once; the last entry counts.
func twice(m *Maker, p string) {
	switch m.r.IntN(7) {
	case 0:
		m.file(p)
	case 1:
		m.symlink(p)
	case 2:
		m.dir(p)
		m.note(p, Replaced)
	case 3:
		m.file(p)
		m.link(m.name(path.Dir(p)), p) // keeps the first contents
	case 4:
		m.node(p)
	case 5:
		m.dir(p)
		m.file(p + "/gone")
		m.note(p, Replaced)
		m.note(p+"/gone", Replaced)
	case 6:
		m.file(p)
		m.dir(p)
		m.file(p + "/stays")
		return
	}
	m.file(p)
}
