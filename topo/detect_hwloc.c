/* SPDX-License-Identifier: Apache-2.0 */
/* hwloc, where it is built in: which NUMA nodes have CPUs, and which of them a PCI part is near. It
 * knows machines whose firmware tells that wrongly or not at all. */
#include "topo/detect_parts.h"

#ifdef CINCH_HAS_HWLOC
#include <hwloc.h>

struct cinch_detect_hwloc {
    int unused;
};

static hwloc_topology_t of(const cinch_detector *d) {
    return (hwloc_topology_t)d->hwloc;
}

/* Only PCI parts are asked for: what looks for GPUs by CUDA, OpenCL or an X server is not started.
 */
static bool load(hwloc_topology_t topology) {
    /* hwloc reads PCI from sysfs by itself; libpciaccess, by a plugin of it, keeps what it
     * allocates. */
    hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "pci");
    hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_type_filter(topology, HWLOC_OBJ_PCI_DEVICE, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_type_filter(topology, HWLOC_OBJ_BRIDGE, HWLOC_TYPE_FILTER_KEEP_ALL);
    /* A machine stays the same in a container that may use a part of its CPUs. */
    hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    return hwloc_topology_load(topology) == 0 && hwloc_topology_is_thissystem(topology);
}

void cinch_detect_hwloc_open(cinch_detector *d) {
    hwloc_topology_t topology;
    d->hwloc = NULL;
    if (d->recorded || hwloc_topology_init(&topology) != 0) return;
    if (load(topology)) {
        d->hwloc = (struct cinch_detect_hwloc *)topology;
        return;
    }
    hwloc_topology_destroy(topology);
    cinch_topology_warn(d->m->t, "hwloc does not see this machine: sysfs alone is read");
}

void cinch_detect_hwloc_close(cinch_detector *d) {
    if (d->hwloc) hwloc_topology_destroy(of(d));
    d->hwloc = NULL;
}

int cinch_detect_hwloc_nodes(const cinch_detector *d, int *node, int most) {
    int nodes = 0;
    if (!d->hwloc) return 0;
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(of(d), HWLOC_OBJ_NUMANODE, o));)
        if (nodes < most && o->cpuset && !hwloc_bitmap_iszero(o->cpuset))
            node[nodes++] = (int)o->os_index;
    return nodes;
}

int cinch_detect_hwloc_node_of(const cinch_detector *d, const char *bus) {
    hwloc_obj_t o = d->hwloc ? hwloc_get_pcidev_by_busidstring(of(d), bus) : NULL;
    if (o) o = hwloc_get_non_io_ancestor_obj(of(d), o);
    /* One that is near several nodes is not placed. */
    if (!o || !o->nodeset || hwloc_bitmap_weight(o->nodeset) != 1) return -1;
    return hwloc_bitmap_first(o->nodeset);
}

#else

void cinch_detect_hwloc_open(cinch_detector *d) {
    d->hwloc = NULL;
}

void cinch_detect_hwloc_close(cinch_detector *d) {
    (void)d;
}

int cinch_detect_hwloc_nodes(const cinch_detector *d, int *node, int most) {
    (void)d, (void)node, (void)most;
    return 0;
}

int cinch_detect_hwloc_node_of(const cinch_detector *d, const char *bus) {
    (void)d, (void)bus;
    return -1;
}

#endif
