/* A stand-in of the Jetson's hardware decoder, which decodebin prefers to all others, and whose frames are in the GPU's memory. */
#define MOVES_IN TRUE
#define MOVER "DecoderMover"
#include "nvmm.h"

typedef struct {
    GstBin base;
} Decoder;
typedef struct {
    GstBinClass base;
} DecoderClass;

static GType decoder_get_type(void);
G_DEFINE_TYPE(Decoder, decoder, GST_TYPE_BIN)

static void decoder_class_init(DecoderClass *class) {
    describe_bin(GST_ELEMENT_CLASS(class), "Codec/Decoder/Video", "video/x-h264, stream-format = (string) byte-stream, alignment = (string) au",
                 "video/x-raw(" NVMM "), format = (string) { NV12 }");
}

static void decoder_init(Decoder *self) {
    GstElement *decoder = gst_element_factory_make("avdec_h264", NULL), *convert = gst_element_factory_make("videoconvert", NULL);
    GstElement *mover = make_mover();
    gst_bin_add_many(GST_BIN(self), decoder, convert, mover, NULL);
    gst_element_link_many(decoder, convert, mover, NULL);
    add_ghost(GST_ELEMENT(self), "sink", decoder);
    add_ghost(GST_ELEMENT(self), "src", mover);
}

static gboolean init(GstPlugin *plugin) {
    return gst_element_register(plugin, "nvv4l2decoder", GST_RANK_PRIMARY + 11, decoder_get_type());
}

STANDIN(nvvideo4linux2, init)
