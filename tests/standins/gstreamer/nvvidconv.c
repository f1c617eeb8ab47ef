/* A stand-in of the Jetson's converter: takes frames out of the GPU's memory, scales, rotates and mirrors them. Like the real one it
   has no BGR: that needs a videoconvert behind it. */
#define MOVES_IN FALSE
#define MOVER "ConverterMover"
#include "nvmm.h"

typedef struct {
    GstBin base;
    GstElement *flip;
} Converter;
typedef struct {
    GstBinClass base;
} ConverterClass;

static GType converter_get_type(void);
G_DEFINE_TYPE(Converter, converter, GST_TYPE_BIN)

static void converter_set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
    /* The two elements number the same eight ways differently: nvvidconv's 1 is counterclockwise, videoflip's 3. */
    static const gint methods[] = {0, 3, 2, 1, 4, 7, 5, 6};
    (void)id, (void)spec;
    g_object_set(((Converter *)object)->flip, "method", methods[g_value_get_int(value)], NULL);
}

static void converter_class_init(ConverterClass *class) {
    describe_bin(GST_ELEMENT_CLASS(class), "Filter/Converter/Video/Scaler", "video/x-raw(" NVMM "); video/x-raw",
                 "video/x-raw, format = (string) { I420, UYVY, YUY2, YVYU, NV12, NV16, GRAY8, BGRx, RGBA }");
    G_OBJECT_CLASS(class)->set_property = converter_set_property;
    g_object_class_install_property(G_OBJECT_CLASS(class), 1,
                                    g_param_spec_int("flip-method", NULL, NULL, 0, 7, 0, G_PARAM_WRITABLE | G_PARAM_STATIC_STRINGS));
}

static void converter_init(Converter *self) {
    GstElement *mover = make_mover(), *first = gst_element_factory_make("videoconvert", NULL);
    GstElement *scale = gst_element_factory_make("videoscale", NULL), *last = gst_element_factory_make("videoconvert", NULL);
    self->flip = gst_element_factory_make("videoflip", NULL);
    gst_bin_add_many(GST_BIN(self), mover, first, self->flip, scale, last, NULL);
    gst_element_link_many(mover, first, self->flip, scale, last, NULL);
    add_ghost(GST_ELEMENT(self), "sink", mover);
    add_ghost(GST_ELEMENT(self), "src", last);
}

static gboolean init(GstPlugin *plugin) {
    return gst_element_register(plugin, "nvvidconv", GST_RANK_PRIMARY, converter_get_type());
}

STANDIN(nvvidconv, init)
