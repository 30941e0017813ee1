/* SPDX-License-Identifier: Apache-2.0 */
/* The checks, each for a fault seen on real machines and in files that vendors ship. */
#include "topo/sane.h"

#include <math.h>
#include <string.h>
#include <strings.h>

/* A PCI path so many times slower than its peers' is a fault and not a choice; a NIC so many times
 * faster than its bus is a slip in a number. */
#define FAR_SLOWER 4.0
#define FAR_FASTER 8.0
#define EMULATED_GBPS 0.1875 /* x1 of generation 1, what emulated bridges report */

static bool is_gpu(const cinch_machine *m, int part) {
    return m->part[part].kind == CINCH_MACHINE_GPU;
}

/* What a part is called in a sentence: GPUs get their names only in the graph. */
typedef struct {
    char text[CINCH_MACHINE_NAME + 8];
} label;

static label called(const cinch_machine *m, int part) {
    label l;
    const cinch_machine_part *p = &m->part[part];
    if (p->kind == CINCH_MACHINE_GPU && strncmp(p->bus, "GPU", 3) != 0)
        snprintf(l.text, sizeof l.text, "GPU %s", p->bus);
    else
        snprintf(l.text, sizeof l.text, "%s", p->name);
    return l;
}

/* ---- links between GPUs ---- */

static void drop_self_loops(cinch_machine *m) {
    int kept = 0;
    for (int i = 0; i < m->links; i++) {
        if (m->link[i].from != m->link[i].to)
            m->link[kept++] = m->link[i];
        else
            cinch_topology_warn(m->t, "%s has links to itself: left out",
                                called(m, m->link[i].from).text);
    }
    m->links = kept;
}

/* Links sorted by their ends, those with the same ends joined: a heap sort, bounded whatever comes.
 */
static bool link_before(const cinch_machine_link *a, const cinch_machine_link *b) {
    return a->from != b->from ? a->from < b->from : a->to < b->to;
}

static void sift(cinch_machine_link *link, int root, int count) {
    for (int child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && link_before(&link[child], &link[child + 1])) child++;
        if (!link_before(&link[root], &link[child])) return;
        cinch_machine_link other = link[root];
        link[root] = link[child];
        link[child] = other;
    }
}

static void join_links(cinch_machine *m) {
    for (int i = m->links / 2 - 1; i >= 0; i--) sift(m->link, i, m->links);
    for (int last = m->links - 1; last > 0; last--) {
        cinch_machine_link other = m->link[0];
        m->link[0] = m->link[last];
        m->link[last] = other;
        sift(m->link, 0, last);
    }
    int kept = 0;
    for (int i = 0; i < m->links; i++) {
        cinch_machine_link *before = kept > 0 ? &m->link[kept - 1] : NULL;
        if (before && before->from == m->link[i].from && before->to == m->link[i].to) {
            before->count += m->link[i].count;
            before->gbps += m->link[i].gbps;
        } else {
            m->link[kept++] = m->link[i];
        }
    }
    m->links = kept;
}

static cinch_machine_link *find_link(const cinch_machine *m, int from, int to) {
    cinch_machine_link want = {.from = from, .to = to};
    int low = 0, high = m->links;
    while (low < high) {
        int middle = (low + high) / 2;
        if (link_before(&m->link[middle], &want))
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < m->links && m->link[low].from == from && m->link[low].to == to;
    return found ? &m->link[low] : NULL;
}

/* These links are as wide in both directions: where the ends disagree, the smaller number holds. */
static void level_links(cinch_machine *m) {
    for (int i = 0; i < m->links; i++) {
        cinch_machine_link *there = &m->link[i];
        cinch_machine_link *back = find_link(m, there->to, there->from);
        if (!back) {
            cinch_topology_warn(m->t,
                                "only %s tells of its links to %s, which tells of none: "
                                "left out",
                                called(m, there->from).text, called(m, there->to).text);
            there->gbps = 0;
        } else if (there->gbps > back->gbps) {
            /* Sums of the same numbers in another order may differ in their last digits. */
            if (there->gbps > back->gbps * 1.000001)
                cinch_topology_warn(m->t,
                                    "from %s to %s there are %g GB/s of links and back %g: the "
                                    "smaller is planned with",
                                    called(m, there->from).text, called(m, there->to).text,
                                    there->gbps, back->gbps);
            there->gbps = back->gbps;
            there->count = back->count;
        }
    }
}

/* A GPU without links among peers that have them, and one with fewer to the switch. */
static void compare_gpus(cinch_machine *m) {
    int with = 0, without = 0, most = 0, nvswitch = cinch_machine_nvswitch(m);
    for (int i = 0; i < m->links; i++)
        if (m->link[i].to == nvswitch && m->link[i].count > most) most = m->link[i].count;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0, k = 0; i < m->parts; i++) {
            bool linked = false;
            for (; k < m->links && m->link[k].from == i; k++) /* they are sorted */
                linked = linked || m->link[k].gbps > 0;
            if (!is_gpu(m, i)) continue;
            if (pass == 0)
                *(linked ? &with : &without) += 1;
            else if (!linked && with > without)
                cinch_topology_warn(m->t,
                                    "%s has no NVLink or xGMI, which %d of its peers have: "
                                    "it is planned over PCI",
                                    called(m, i).text, with);
        }
    for (int i = 0; nvswitch >= 0 && i < m->links; i++)
        if (m->link[i].to == nvswitch && m->link[i].count < most)
            cinch_topology_warn(m->t, "%s has %d links to the switch, its peers up to %d",
                                called(m, m->link[i].from).text, m->link[i].count, most);
}

/* ---- PCI ---- */

static double path_gbps(const cinch_machine *m, int part) {
    double least = INFINITY;
    for (; m->part[part].parent >= 0; part = m->part[part].parent)
        least = fmin(least, m->part[part].gbps);
    return least;
}

static void describe(const cinch_machine_part *p, char *text, size_t room) {
    if (p->lanes > 0)
        snprintf(text, room, "x%d of %g GT/s", p->lanes, p->gts);
    else
        snprintf(text, room, "%.3g GB/s", p->gbps);
}

/* x1 and generation 1 are what idle and emulated links say; anything else may be as it was built.
 */
static bool is_doubtful(const cinch_machine_part *p) {
    return p->gts == 2.5 || p->lanes == 1 || p->gbps <= EMULATED_GBPS;
}

static void speed_up(cinch_machine *m, int part, double gbps, const char *than) {
    cinch_machine_part *p = &m->part[part];
    char link[64];
    describe(p, link, sizeof link);
    if (is_doubtful(p)) {
        cinch_topology_warn(m->t,
                            "the PCI link of %s, %s, is far slower than %s, as when it is idle or "
                            "emulated: %.4g GB/s is planned with",
                            called(m, part).text, link, than, gbps);
        p->gbps = gbps;
        p->lanes = 0;
        p->gts = 0;
    } else {
        cinch_topology_warn(m->t,
                            "the PCI link of %s, %s, is far slower than %s: %.4g GB/s is planned "
                            "with all the same",
                            called(m, part).text, link, than, p->gbps);
    }
}

/* A link on a GPU's way that is far slower than its peers' ways, or than the GPU's own. */
static void check_paths(cinch_machine *m) {
    double best = 0;
    for (int i = 0; i < m->parts; i++) {
        if (!is_gpu(m, i)) continue;
        for (int up = m->part[i].parent; m->part[up].parent >= 0; up = m->part[up].parent)
            if (m->part[up].gbps <= EMULATED_GBPS &&
                m->part[i].gbps >= FAR_SLOWER * m->part[up].gbps)
                speed_up(m, up, m->part[i].gbps, "that of the GPU below it");
        best = fmax(best, path_gbps(m, i));
        for (int at = i; at >= 0; at = m->part[at].parent) m->part[at].on_way = true;
    }
    for (int i = 0; i < m->parts; i++)
        if (m->part[i].parent >= 0 && m->part[i].on_way && m->part[i].gbps * FAR_SLOWER <= best)
            speed_up(m, i, best, "a peer's");
}

/* ---- NICs ---- */

static void check_nics(cinch_machine *m) {
    int nics = 0, loose = 0;
    for (int i = 0; i < m->parts; i++) {
        cinch_machine_part *p = &m->part[i];
        if (p->kind == CINCH_MACHINE_NIC) {
            nics++;
            loose += m->part[p->parent].kind == CINCH_MACHINE_CPU && !p->bus[0];
        }
        if (p->kind != CINCH_MACHINE_PORT) continue;
        const char *name = strncmp(p->name, "net:", 4) == 0 ? p->name + 4 : p->name;
        double bus = path_gbps(m, p->parent);
        if (p->gbps > FAR_FASTER * bus) {
            cinch_topology_warn(m->t,
                                "the NIC %s says %.4g GB/s, %.3g times its bus: the bus's %.4g "
                                "GB/s are planned with",
                                name, p->gbps, p->gbps / bus, bus);
            p->gbps = bus;
        }
        if (strcasestr(name, "bond"))
            cinch_topology_warn(m->t,
                                "the NIC %s is a bond, which may report the speed of one of "
                                "its ports: %.4g GB/s is planned with",
                                name, p->gbps);
    }
    if (nics > 0 && loose == nics)
        cinch_topology_warn(m->t,
                            "no NIC is on a PCI bus, as in a virtual machine: how near one is to "
                            "a GPU is not known");
}

void cinch_machine_mend(cinch_machine *m) {
    drop_self_loops(m);
    join_links(m);
    level_links(m);
    compare_gpus(m);
    check_paths(m);
    check_nics(m);
    int gpus = 0;
    for (int i = 0; i < m->parts; i++) gpus += is_gpu(m, i);
    if (gpus == 0 && !m->seen) cinch_topology_warn(m->t, "there is no GPU in it");
}
