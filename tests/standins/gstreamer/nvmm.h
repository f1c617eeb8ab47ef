/* What the stand-ins of the Jetson's GStreamer elements share: frames "in the GPU's memory" are ordinary ones whose caps carry the
   feature memory:NVMM, so that only elements that name the feature link to them, as on a board. */
#include <gst/base/base.h>
#include <gst/gst.h>

#define NVMM "memory:NVMM"
/* The stand-in of one plugin: its name is that of its file, libgstNAME.so, as on a board. */
#define STANDIN(name, init) \
    GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, name, "stand-in", init, "1.0", "Proprietary", "edge-resnet tests", \
                      "https://localhost/")

#ifdef MOVES_IN
/* An element that passes frames on and changes what their caps say of the memory: it becomes the GPU's if MOVES_IN is TRUE, else the
   processor's. A plugin that moves nothing defines neither MOVES_IN nor MOVER, the name of the element's type in the process. */
static GstCaps *mover_transform_caps(GstBaseTransform *base, GstPadDirection from, GstCaps *caps, GstCaps *filter) {
    gboolean add = (from == GST_PAD_SINK) == MOVES_IN;
    GstCaps *result = gst_caps_new_empty();
    (void)base;
    for (guint i = 0; i < gst_caps_get_size(caps); i++) {
        GstStructure *structure = gst_structure_copy(gst_caps_get_structure(caps, i));
        gst_caps_append_structure_full(result, structure, add ? gst_caps_features_new(NVMM, NULL) : NULL);
        /* A converter takes frames of the processor's memory, too. */
        if (add && !MOVES_IN) gst_caps_append_structure(result, gst_structure_copy(structure));
    }
    if (filter) {
        GstCaps *both = gst_caps_intersect_full(filter, result, GST_CAPS_INTERSECT_FIRST);
        gst_caps_unref(result);
        result = both;
    }
    return result;
}

static GstFlowReturn mover_transform_ip(GstBaseTransform *base, GstBuffer *buffer) {
    (void)base, (void)buffer;
    return GST_FLOW_OK;
}

static void mover_class_init(gpointer class, gpointer data) {
    GstElementClass *element = GST_ELEMENT_CLASS(class);
    (void)data;
    const char *gpu = "video/x-raw(" NVMM ")", *any = "video/x-raw(" NVMM "); video/x-raw";
    GstCaps *sink = gst_caps_from_string(MOVES_IN ? "video/x-raw" : any);
    GstCaps *src = gst_caps_from_string(MOVES_IN ? gpu : "video/x-raw");
    gst_element_class_add_pad_template(element, gst_pad_template_new("sink", GST_PAD_SINK, GST_PAD_ALWAYS, sink));
    gst_element_class_add_pad_template(element, gst_pad_template_new("src", GST_PAD_SRC, GST_PAD_ALWAYS, src));
    gst_caps_unref(sink);
    gst_caps_unref(src);
    gst_element_class_set_static_metadata(element, "mover", "Filter", "stand-in", "edge-resnet tests");
    GST_BASE_TRANSFORM_CLASS(class)->transform_caps = mover_transform_caps;
    GST_BASE_TRANSFORM_CLASS(class)->transform_ip = mover_transform_ip;
}

static void mover_init(GTypeInstance *self, gpointer class) {
    (void)class;
    gst_base_transform_set_in_place(GST_BASE_TRANSFORM(self), TRUE);
}

static GstElement *make_mover(void) {
    static GType type;
    if (!type)
        type = g_type_register_static_simple(GST_TYPE_BASE_TRANSFORM, MOVER, sizeof(GstBaseTransformClass), mover_class_init,
                                             sizeof(GstBaseTransform), mover_init, 0);
    return g_object_new(type, NULL);
}

/* A pad of a bin for the pad of an inner element, with the template that the bin's class has for it. */
static void add_ghost(GstElement *bin, const char *name, GstElement *inner) {
    GstPad *target = gst_element_get_static_pad(inner, name);
    GstPadTemplate *template = gst_element_class_get_pad_template(GST_ELEMENT_GET_CLASS(bin), name);
    gst_element_add_pad(bin, gst_ghost_pad_new_from_template(name, target, template));
    gst_object_unref(target);
}

/* The class of a bin: what it says of itself, and the caps of its two pads. */
static void describe_bin(GstElementClass *class, const char *kind, const char *sink, const char *src) {
    GstCaps *takes = gst_caps_from_string(sink), *gives = gst_caps_from_string(src);
    gst_element_class_add_pad_template(class, gst_pad_template_new("sink", GST_PAD_SINK, GST_PAD_ALWAYS, takes));
    gst_element_class_add_pad_template(class, gst_pad_template_new("src", GST_PAD_SRC, GST_PAD_ALWAYS, gives));
    gst_caps_unref(takes);
    gst_caps_unref(gives);
    gst_element_class_set_static_metadata(class, "stand-in", kind, "stand-in", "edge-resnet tests");
}
#endif
